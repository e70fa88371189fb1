"""Where things are in the directory of a file bus, and locking them.

TOPIC.jsonl                   the messages, one per line, only ever appended to
.clock                        for each start of the machine, what is added to the time since then
.groups/TOPIC/append          where an append in progress begins, so that an interrupted one can be taken back
.groups/TOPIC/GROUP.json      how far the group is, and what it has not settled
.groups/TOPIC/GROUP.lock      locked while GROUP.json is read and replaced
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from bus.errors import BadNameError, BusURLError
from bus.lines.append import sync_directory
from bus.lines.trouble import explain
from bus.names import check_group, check_topic

__all__ = ["Layout", "locked"]

_LOG = ".jsonl"
_STATE = ".json"


class Layout:
    """Paths under one root. Names given here have passed ``bus.names``."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._groups = os.path.join(root, ".groups")

    @property
    def clock(self) -> str:
        """What time it is, for all who share the directory."""
        return os.path.join(self.root, ".clock")

    def log(self, topic: str) -> str:
        """The messages of a topic."""
        return os.path.join(self.root, topic + _LOG)

    def journal(self, topic: str) -> str:
        """Where an append in progress is noted."""
        return os.path.join(self._groups, topic, "append")

    def state(self, topic: str, group: str) -> str:
        """The state of a group."""
        return os.path.join(self._groups, topic, group + _STATE)

    def lock(self, topic: str, group: str) -> str:
        """What is locked while the state of a group changes."""
        return os.path.join(self._groups, topic, group + ".lock")

    def make_root(self) -> None:
        """Make the directory if it is missing.

        Raises:
            BusURLError, UnauthorisedError: it cannot be made or is not a directory.
        """
        try:
            os.makedirs(self.root, 0o750, exist_ok=True)
        except FileExistsError:
            raise BusURLError(f"{self.root} is a file; file: takes a directory, for one file use lines:") from None
        except OSError as error:
            raise explain(error, f"cannot make the directory {self.root}") from error

    def make_topic(self, topic: str) -> None:
        """Make the directory of a topic's groups if it is missing."""
        path = os.path.join(self._groups, topic)
        if not os.path.isdir(path):
            os.makedirs(path, 0o750, exist_ok=True)
            sync_directory(path)
            sync_directory(self._groups)

    def topics(self) -> list[str]:
        """Names of the topics that have messages or groups, sorted."""
        logs = (name.removesuffix(_LOG) for name in _names(self.root) if name.endswith(_LOG))
        return sorted({name for name in (*logs, *_names(self._groups)) if _is(check_topic, name)})

    def groups(self, topic: str) -> list[str]:
        """Names of the groups of a topic, sorted."""
        states = _names(os.path.join(self._groups, topic))
        groups = (name.removesuffix(_STATE) for name in states if name.endswith(_STATE))
        return sorted(group for group in groups if _is(check_group, group))


@contextlib.contextmanager
def locked(path: str, flags: int, *, shared: bool = False) -> Iterator[int]:
    """Open the file and lock it until the end of the block; it is the file which has that name once locked.

    Raises:
        OSError: it cannot be opened.
    """
    while True:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if _has_name(fd, path):
                yield fd
                return
        finally:
            # The lock belongs to what was opened, of which the caller may keep a duplicate.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _has_name(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _is(check: object, name: str) -> bool:
    try:
        check(name)  # type: ignore[operator]
    except BadNameError:
        return False
    return True
