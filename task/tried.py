"""Notes of attempts that may end their process: when and where each began, for the dead letter of a task that kills.

Whoever is killed tells nobody. So an attempt at a message that was delivered before is noted when it is taken, in a
file of this host that outlives the process; the first attempt is not, as that would cost every task. When such a
message is dead-lettered because no attempt came to an end, the notes say where to look for what happened. They are for
people: nothing is decided by them, and one that cannot be written or read is left out.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from bus import Delivery
from task.times import now_text

__all__ = ["Tried", "tidy_tried"]

#: Bytes after which a file is put aside and another begun. The one put aside is still read; the one before it is gone.
#: Both hold some thousands of notes, and are read in a moment: thousands of tasks may have to be given up at once.
_LARGEST = 256 * 1024
_SUFFIX = ".tried"
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
#: What a note holds after the id and the checksum of the message: which attempt, when and on which host it was taken,
#: and by which process.
_FORM = (int, str, str, int)


class Tried:
    """The notes of all instances of one host that share ``scope``: the same bus, topic, group and epoch."""

    def __init__(self, folder: Path, scope: str) -> None:
        self._path = folder / f"{scope}{_SUFFIX}"
        self._aside = folder / f"{scope}-aside{_SUFFIX}"
        self._fd: int | None = None

    def note(self, delivery: Delivery, attempt: int) -> None:
        """An attempt at this message is about to be made here."""
        with contextlib.suppress(OSError, orjson.JSONEncodeError):
            line = _head(delivery) + orjson.dumps((attempt, now_text(), platform.node(), os.getpid())) + b"\n"
            fd = self._fd
            # Whichever instance put a file aside, that one is full.
            if fd is None or os.fstat(fd).st_size > _LARGEST:
                fd = self._begin()
            os.write(fd, line)

    def _begin(self) -> int:
        self.close()
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(self._path).st_size > _LARGEST:
                os.replace(self._path, self._aside)
        self._fd = fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        return fd

    def tries(self, delivery: Delivery) -> list[dict[str, object]]:
        """What is known of attempts at this message, the earliest first."""
        found: dict[int, dict[str, object]] = {}
        with contextlib.suppress(orjson.JSONEncodeError):
            head = _head(delivery)
            for path in (self._aside, self._path):
                for rest in _rests(_read(path), head):
                    if (fields := _fields(rest)) is not None:
                        found[fields[0]] = dict(zip(("attempt", "taken", "host", "pid"), fields, strict=True))
        return [found[attempt] for attempt in sorted(found)]

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _head(delivery: Delivery) -> bytes:
    """What a note of this message begins with."""
    return b"%s %08x " % (orjson.dumps(delivery.id), crc32(delivery.body))


def _rests(data: bytes, head: bytes) -> Iterator[bytes]:
    """What follows ``head`` on each line that begins with it."""
    at = data.find(head)
    while at >= 0:
        end = data.find(b"\n", at)
        if at == 0 or data[at - 1 : at] == b"\n":
            yield data[at + len(head) : end if end >= 0 else len(data)]
        at = data.find(head, at + len(head))


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return b""
    with open(fd, "rb") as file, contextlib.suppress(OSError):
        return file.read(2 * _LARGEST)
    return b""


def _fields(rest: bytes) -> list[Any] | None:
    """What a note holds. None if it is torn, or another version wrote it."""
    try:
        fields = orjson.loads(rest)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, list) and tuple(map(type, fields)) == _FORM else None


def tidy_tried(folder: Path, before: float) -> None:
    """Delete notes that were last added to before that moment, seconds since 1970."""
    for path in folder.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < before:
                path.unlink()
