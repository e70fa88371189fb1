"""SQLite's errors as errors of the bus."""

from __future__ import annotations

import sqlite3

from bus.errors import BusError, BusURLError, CorruptError, FullError, UnauthorisedError, UnreachableError

__all__ = ["explain"]

#: Primary result codes, https://sqlite.org/rescode.html
_FULL, _CANTOPEN, _READONLY, _PERM, _AUTH, _CORRUPT, _NOTADB = 13, 14, 8, 3, 23, 11, 26


def explain(error: sqlite3.Error, path: str) -> BusError:
    """What ``error`` means for the user of the database at ``path``."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == _FULL:
        return FullError(f"no room to write to {path}; free some space, it goes on by itself")
    if code in (_READONLY, _PERM, _AUTH):
        return UnauthorisedError(f"{path} cannot be written: {error}; check the rights on the file and its folder")
    if code == _CANTOPEN:
        return BusURLError(f"cannot open {path}: {error}; does its folder exist, and may it be written to?")
    if code in (_CORRUPT, _NOTADB):
        return CorruptError(f"{path} is no sound SQLite database: {error}; restore it, or move it away to begin anew")
    return UnreachableError(f"{path}: {error}")
