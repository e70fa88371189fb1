"""Which file or pipe a ``lines:`` URL means, and opening it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
from dataclasses import dataclass

from bus.errors import BusURLError
from bus.lines.append import sync_directory
from bus.lines.trouble import explain

__all__ = ["Place", "is_pollable", "is_regular"]

_STANDARD = {"", "-", "/dev/stdin", "/dev/stdout"}
_NAMED_FD = re.compile(r"/dev/fd/(\d{1,6})")


def is_regular(fd: int) -> bool:
    """Whether ``fd`` is a regular file; False for a closed one."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def is_pollable(fd: int) -> bool:
    """Whether ``fd`` can be waited for: a pipe, a socket or a terminal."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)


@dataclass(frozen=True, slots=True)
class Place:
    """A path, or the standard streams (``-``)."""

    path: str

    @property
    def standard(self) -> bool:
        """Whether this is standard input and output rather than a file of its own."""
        return self.path in _STANDARD

    @property
    def ours(self) -> bool:
        """Whether a second file may be made beside it: it is a path, and not one under ``/dev``."""
        return not self.standard and not os.path.abspath(self.path).startswith("/dev/")

    @property
    def regular_input(self) -> bool:
        """Whether this can be read from its start again and again, as far as can be told without opening it."""
        return self._fd(0) is None and self._regular_path()

    @property
    def regular_output(self) -> bool:
        """Whether what is written here ends in a regular file, as far as can be told without opening it."""
        fd = self._fd(1)
        return is_regular(fd) if fd is not None else self._regular_path()

    def _regular_path(self) -> bool:
        try:
            return stat.S_ISREG(os.stat(self.path).st_mode)
        except OSError:
            return True

    def open_input(self) -> int:
        """A descriptor of our own for reading. A named pipe does not block.

        Raises:
            BusURLError, UnauthorisedError: saying what is wrong with the path.
        """
        if self.path == "/dev/stdout":
            raise BusURLError("cannot read /dev/stdout; use - for standard input")
        try:
            return self._open(0, os.O_RDONLY, "cannot read")
        except OSError as error:
            raise explain(error, f"cannot read {self}") from error

    def open_output(self) -> int | None:
        """A descriptor of our own for appending; a missing file is made, with mode 0640.

        Returns None where it is a named pipe that nobody reads yet.

        Raises:
            BusURLError, UnauthorisedError, FullError: saying what is wrong with the path.
        """
        if self.path == "/dev/stdin":
            raise BusURLError("cannot write to /dev/stdin; use - for standard output")
        missing = self.ours and not os.path.lexists(self.path)
        try:
            fd = self._open(1, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, "cannot write to")
            if missing:
                sync_directory(self.path)
        except OSError as error:
            if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(self.path).st_mode):
                return None
            raise explain(error, f"cannot write to {self}") from error
        return fd

    def _open(self, standard: int, flags: int, doing: str) -> int:
        fd = self._fd(standard)
        if self.standard and (sys.__stdin__ if standard == 0 else sys.__stdout__) is None:
            # Python found it closed at its start, and the number may since have gone to some other file.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if fd is not None:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == (os.O_RDONLY if standard else os.O_WRONLY):
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return os.dup(fd)
        if os.path.exists(self.path):
            self._refuse(os.stat(self.path).st_mode, doing)
        return os.open(self.path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)

    def __str__(self) -> str:
        return "the standard streams" if self.standard else self.path

    def _refuse(self, mode: int, doing: str) -> None:
        if stat.S_ISDIR(mode):
            raise BusURLError(f"{doing} {self}: it is a directory; name a file")
        device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode)
        if device and os.path.abspath(self.path) != os.devnull:
            raise BusURLError(f"{doing} {self}: it is a device or a socket; name a file, a pipe, - or /dev/null")

    def _fd(self, standard: int) -> int | None:
        if self.standard:
            return standard
        named = _NAMED_FD.fullmatch(self.path)
        return int(named[1]) if named else None
