"""SQLite's errors as errors of the bus."""

from __future__ import annotations

import os
import sqlite3

from bus.errors import BusError, BusURLError, CorruptError, FullError, UnauthorisedError, UnreachableError

__all__ = ["BUSY", "code_of", "explain"]

#: Primary result codes, https://sqlite.org/rescode.html
_PERM, _BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR, _CORRUPT = 3, 5, 6, 7, 8, 10, 11
_FULL, _CANTOPEN, _TOOBIG, _AUTH, _NOTADB = 13, 14, 18, 23, 26
#: Somebody else holds the lock: the same statement may succeed a moment later.
BUSY = frozenset((_BUSY, _LOCKED))


def code_of(error: sqlite3.Error) -> int:
    """The primary result code; 0 for an error of Python's module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def explain(error: sqlite3.Error, path: str) -> BusError:
    """What ``error`` means for the user of the database at ``path``."""
    code = code_of(error)
    folder = os.path.dirname(path)
    if code == _FULL or (code == _IOERR and not _has_room(folder)):
        return FullError(f"{path}: no room on its disk; nothing of this was stored: make room and it goes on")
    if code in BUSY:
        return UnreachableError(f"{path} is locked: another process has been writing to it for long; try again")
    if code in (_READONLY, _PERM, _AUTH):
        return UnauthorisedError(f"{path} cannot be written to; change its permissions or run as its owner")
    if code == _NOTADB:
        return BusURLError(f"{path} is not a SQLite database; name another file, or one that does not exist yet")
    if code == _CORRUPT:
        return CorruptError(f"{path} is damaged ({error}); restore it from a copy, or move it away to begin anew")
    if code == _CANTOPEN:
        return _cannot_open(path, folder)
    return UnreachableError(f"{path}: {error}; it is tried again")


def _cannot_open(path: str, folder: str) -> BusError:
    if os.path.isdir(path):
        return BusURLError(f"{path} is a directory; name a file in it")
    if not os.path.isdir(folder):
        return BusURLError(f"cannot open {path}: the directory {folder} does not exist")
    return UnauthorisedError(
        f"cannot open {path}: the file and its directory must both be writable; change their permissions or "
        "run as their owner"
    )


def _has_room(folder: str) -> bool:
    """SQLite reports some writes to a full disk as plain I/O errors, those of its shared memory for one."""
    try:
        return os.statvfs(folder).f_bavail > 16
    except OSError:
        return True
