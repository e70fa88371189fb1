"""Outcomes that survive kill -9: what was done but not yet settled is not done again on this host.

Tiny tasks are settled in batches, so a killed instance may have done many whose results never left it. Each outcome
that ends a task is therefore copied into a memory-mapped file the moment it exists (a memory copy, no system call:
the kernel keeps the page when the process dies). When the bus delivers such a message again, an instance on the same
host answers with the recorded outcome instead of doing the task a second time.

Only a message of the same bus, topic, group and epoch (:attr:`bus.Consumer.epoch`) can match, and only by its own
identity, an earlier attempt and an unchanged body. Records of dead instances are forgotten after an hour.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import stat
import struct
import tempfile
import threading
import time
from hashlib import blake2b
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, BinaryIO
from zlib import adler32

import orjson

from bus import Delivery
from task.assignment import Assignment
from task.outcome import Outcome, Result
from task.tried import Tried, tidy_tried

__all__ = ["Recorder", "open_recorder"]

_log = logging.getLogger("taskbus.worker")
#: Bytes of one of the two halves that are written in turn. One holds far more than a full window of results.
_HALF = 1024 * 1024
#: Length and checksum before each entry; a length of 0 ends a half.
_HEAD = struct.Struct("<II")
#: Types of what a record holds, without and with meta.
_FORMS = tuple((str, int, int, str, str, meta, bool, str, str) for meta in (type(None), dict))
_RESULTS = frozenset(str(result) for result in Result)
_END = b"\0\0\0\0"
_dumps = orjson.dumps
#: Seconds after which the records of a dead instance are deleted: any lease is long over.
_FORGET = 3600.0
#: Least seconds between two looks for records of instances that died meanwhile.
_LOOK_AGAIN = 0.5
#: Dead instances whose records are kept, and how many of these records an instance remembers, those that it read last.
_MOST_DEAD, _MOST_LEFT = 100, 100_000
#: Bytes read at a time of what a dead instance left.
_PIECE = 64 * 1024


def open_recorder(bus: str, topic: str, group: str, epoch: str) -> Recorder | None:
    """A recorder for this instance, in a private folder of the system's temporary one. None if that cannot be had."""
    scope = blake2b("\0".join((bus, topic, group, epoch)).encode(), digest_size=12).hexdigest()
    try:
        folder = _folder()
        _tidy(folder)
        tidy_tried(folder, time.time() - _FORGET)
        return Recorder(folder, scope)
    except OSError as error:
        _log.warning("outcomes are not recorded against kill -9: %s", error, extra={"event": "no-recorder"})
        return None


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"taskbus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of ours")
    return folder


def _open_dead(path: Path) -> int | None:
    """A descriptor of the records of a dead instance. None if it lives, is just making them, or they are gone."""
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(fd).st_size:
            return fd
    except OSError:
        pass
    if fd >= 0:
        os.close(fd)
    return None


def _fields(entry: bytes) -> list[Any] | None:
    """What was recorded. None if that is not as this version writes it: another one may have been running before."""
    try:
        fields = orjson.loads(entry)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, list) or tuple(map(type, fields)) not in _FORMS or fields[3] not in _RESULTS:
        return None
    meta = fields[5]
    return fields if meta is None or all(type(value) is str for value in meta.values()) else None


def _tidy(folder: Path) -> None:
    """Give back the room that dead instances do not need: an application in a crash loop must not fill the disk."""
    kept: list[tuple[float, Path]] = []
    for path in folder.glob("*.run"):
        fd = _open_dead(path)
        if fd is None:
            continue
        try:
            found = os.fstat(fd)
            used = len(os.pread(fd, 2 * _HALF, 0).rstrip(b"\0"))
            if not used or time.time() - found.st_mtime > _FORGET:
                path.unlink(missing_ok=True)
                continue
            if used < found.st_size:
                os.ftruncate(fd, used)
                os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
            kept.append((found.st_mtime, path))
        finally:
            os.close(fd)
    for _, path in sorted(kept)[:-_MOST_DEAD]:
        path.unlink(missing_ok=True)


class Recorder:
    """The records of this instance, and those left by dead ones with the same ``scope``."""

    def __init__(self, folder: Path, scope: str) -> None:
        self._folder = folder
        self._scope = scope
        #: Attempts that came to no end, as far as instances of this host took them.
        self.tried = Tried(folder, scope)
        self._path = folder / f"{scope}-{os.getpid()}-{os.urandom(4).hex()}.run"
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Held until the process ends, however it ends: by it others see whether we live.
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Room is taken now: writing to a mapped page for which the disk has none would kill the process.
            os.posix_fallocate(fd, 0, 2 * _HALF)
            self._map = mmap.mmap(fd, 2 * _HALF)
        except OSError:
            self._path.unlink()
            os.close(fd)
            raise
        self._fd = fd
        self._lock = threading.Lock()
        self._start = 0
        self._at = 0
        self._touch = 0.0
        #: What dead instances left, by id and checksum, in the order of reading: when it was read, and what they wrote.
        self._left: dict[tuple[str, int], tuple[float, bytes]] = {}
        self._read: set[str] = set()
        self._looked = 0.0
        self._closed = False

    def record(self, assignment: Assignment) -> None:
        """Remember how ``assignment`` ended. Called on the thread that ran it."""
        outcome = assignment.outcome
        if outcome is None or outcome.retry_in is not None:
            return
        delivery, meta = assignment.delivery, outcome.meta
        if meta is not None:
            meta = {str(key): str(value) for key, value in meta.items()}
        try:
            entry = _dumps(
                (
                    delivery.id,
                    adler32(delivery.body),
                    delivery.attempt,
                    outcome.result._value_,
                    outcome.msg,
                    meta,
                    outcome.rejected,
                    assignment.started,
                    assignment.completed,
                )
            )
        except orjson.JSONEncodeError:
            return
        data = _HEAD.pack(len(entry), adler32(entry)) + entry + _END
        size = len(data)
        if size > _HALF:
            return
        with self._lock:
            if self._closed:
                return
            if assignment.ended >= self._touch:
                # Writing to a mapped page need not change the file's time, by which others tell its age.
                self._touch = assignment.ended + _FORGET / 60
                os.utime(self._fd)
            at = self._at
            if at + size > self._start + _HALF:
                self._start = at = _HALF - self._start
            self._map[at : at + size] = data
            self._at = at + size - len(_END)

    def recall(self, delivery: Delivery, assignment: Assignment) -> bool:
        """Give ``assignment`` the outcome an instance now dead recorded for this message.

        False if there is none, so that it is to be tried; where that is not the first time, this is noted.
        """
        if delivery.attempt < 2:
            return False
        key = (delivery.id, adler32(delivery.body))
        if key not in self._left:
            self._look()
        _, entry = self._left.pop(key, (0.0, b""))
        found = _fields(entry) if entry else None
        if found is None or found[2] >= delivery.attempt:
            self.tried.note(delivery, assignment.context.attempt)
            return False
        result, msg, meta, rejected, started, completed = found[3:]
        assignment.outcome = Outcome(Result(result), msg, meta, None, rejected)
        assignment.started, assignment.completed = started, completed
        return True

    def _look(self) -> None:
        """Read what instances that died since the last look have left."""
        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        there = list(self._folder.glob(f"{self._scope}-*.run"))
        self._read.intersection_update(path.name for path in there)
        for path in there:
            if path.name in self._read or path == self._path:
                continue
            fd = _open_dead(path)
            if fd is None:
                continue
            with open(fd, "rb", buffering=_PIECE) as file:
                if time.time() - os.fstat(fd).st_mtime <= _FORGET:
                    self._read.add(path.name)
                    for start in (0, _HALF):
                        file.seek(start)
                        self._parse(file, now)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Most of what is left was settled long ago, and nobody will ask for it."""
        left = self._left
        for key in list(islice(left, max(0, len(left) - _MOST_LEFT))):
            del left[key]
        for key in list(takewhile(lambda key: now - left[key][0] > _FORGET, left)):
            del left[key]

    def _parse(self, file: BinaryIO, now: float) -> None:
        """Read one half, from where ``file`` is."""
        room = _HALF
        while room >= _HEAD.size and len(head := file.read(_HEAD.size)) == _HEAD.size:
            size, check = _HEAD.unpack(head)
            room -= _HEAD.size + size
            if not size or room < 0 or len(entry := file.read(size)) < size or adler32(entry) != check:
                return
            fields = _fields(entry)
            if fields is not None:
                key = (fields[0], fields[1])
                self._left.pop(key, None)
                self._left[key] = (now, entry)

    def close(self, *, forget: bool = True) -> None:
        """Let go. ``forget`` deletes the records: every outcome was settled."""
        self.tried.close()
        with self._lock:
            self._closed = True
            self._map.close()
        if forget:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
