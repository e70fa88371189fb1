"""What a database's complaint means: whether to repeat the transaction, wait for better times, or give up."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from task.errors import StateDataError, StateError

__all__ = ["as_state_error", "is_conflict"]

#: serialization_failure, deadlock_detected, lock_not_available.
_POSTGRES = ("40001", "40P01", "55P03")
#: admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections.
_POSTGRES_AWAY = ("57P01", "57P02", "57P03", "53300")
#: Lock wait timeout, deadlock, record changed (MariaDB), gone away, lost connection, cannot connect, too many.
_MYSQL = (1205, 1213, 1020, 2006, 2013, 2003, 2002, 1040, 1053)
#: Data that does not fit, or breaks a constraint, by SQLSTATE class and by MySQL's number.
_DATA_CLASSES = ("22", "23", "54")
_DATA_NUMBERS = (1406, 1264, 1366, 1062, 1048, 1153, 3988)


def is_conflict(error: BaseException) -> bool:
    """Whether the same transaction may succeed when repeated now: a lock, a conflict, a lost connection."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    orig = error.orig
    if isinstance(orig, sqlite3.Error):
        return getattr(orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = getattr(orig, "sqlstate", None)
    if state in _POSTGRES or state in _POSTGRES_AWAY:
        return True
    # psycopg gives no state where there was no answer at all.
    return _number(orig) in _MYSQL or (state is None and _number(orig) is None and isinstance(error, OperationalError))


def as_state_error(error: SQLAlchemyError, shown: str, secret: str) -> StateError:
    """The error to raise for it. ``shown`` names the database; ``secret`` is not to be shown."""
    orig = error.orig if isinstance(error, DBAPIError) else None
    told = " ".join(str(orig or error).split()) or type(orig or error).__name__
    if secret:
        told = told.replace(secret, "***")
    message = f"the state in {shown} cannot be used: {told[:500]}"
    if _is_data(orig):
        return StateDataError(message)
    return StateError(message, transient=is_conflict(error) or isinstance(error, (OperationalError, InterfaceError)))


def _is_data(orig: object) -> bool:
    if isinstance(orig, sqlite3.Error):
        code = getattr(orig, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH)
    return str(getattr(orig, "sqlstate", None) or "")[:2] in _DATA_CLASSES or _number(orig) in _DATA_NUMBERS


def _number(orig: object) -> int | None:
    """MySQL's number of an error."""
    args = getattr(orig, "args", ())
    return args[0] if args and isinstance(args[0], int) else None
