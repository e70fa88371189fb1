"""A table of a SQL database: SQLite, PostgreSQL, MySQL or MariaDB, by way of SQLAlchemy Core."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, TypeVar
from urllib.parse import urlsplit

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    not_,
    or_,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from bus.errors import (
    BusError,
    BusURLError,
    ClosedError,
    MissingExtraError,
    TooLargeError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
    WrongRevisionError,
)
from bus.kv.contract import Entry, KeyValue, check_key
from bus.units import duration_within
from bus.url import BusURL, option, parse_options

__all__ = ["SqlKeyValue"]

#: Scheme of the URL → SQLAlchemy's name of dialect and driver, and the extra that brings the driver.
_DRIVERS = {
    "postgresql": ("postgresql+psycopg", "postgres"),
    "postgres": ("postgresql+psycopg", "postgres"),
    "mysql": ("mysql+pymysql", "mysql"),
    "mariadb": ("mysql+pymysql", "mysql"),
}
#: Bytes of the largest value.
_LARGEST = 1024 * 1024
#: Seconds before the first and the longest before any repetition of a transaction that met another one.
_FIRST, _LONGEST = 0.002, 0.2
#: Seconds between two deletions of what has expired, and rows of one.
_TIDY, _MOST = 60.0, 1000
_MICRO = 10**6
#: serialization_failure, deadlock_detected, lock_not_available; lock wait timeout, deadlock, record changed (MariaDB).
_CONFLICTS = ("40001", "40P01", "55P03", 1205, 1213, 1020)
#: What comes of making the same table at the same time as another process: a row, a table, an index that is there.
_MAKING = ("23505", "42P07", 1050, 1061)

_metadata = MetaData()
_table = Table(
    "taskbus_kv",
    _metadata,
    # Every change is a new row, and the number of a row is never given to another: so it is the revision.
    Column("revision", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("value", LargeBinary(2 * _LARGEST), nullable=False),
    #: Microseconds of the clock with this name; NULL for an entry that stays.
    Column("expires", BigInteger, index=True),
    Column("clock", String(64), nullable=False),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
    mysql_engine="InnoDB",
    sqlite_autoincrement=True,
)
# Statements are put together once: that would cost more than doing them.
_key, _at = _table.c.name == bindparam("key"), bindparam("at", type_=BigInteger)
_ours = _table.c.clock == bindparam("on")
_lives = or_(_table.c.expires.is_(None), and_(_ours, _table.c.expires > _at))
_expired = and_(_table.c.expires.is_not(None), or_(not_(_ours), _table.c.expires <= _at))
_GET = select(_table.c.value, _table.c.revision).where(_key, _lives)
_MAKE_ROOM = delete(_table).where(_key, _expired)
_TAKE_AWAY = delete(_table).where(_key, _table.c.revision == bindparam("seen"), _lives)
_INSERT = insert(_table)
_EXPIRED = select(_table.c.revision).where(_expired).limit(_MOST)
_TIDY_UP = delete(_table).where(_table.c.revision.in_(bindparam("gone", expanding=True)), _expired)
#: Microseconds since the epoch by the server's clock.
_NOW = {
    "postgresql": text("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"),
    "mysql": text("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"),
}
Returned = TypeVar("Returned")


@dataclass(frozen=True, slots=True)
class _Options:
    timeout: float = option(duration_within(0.1, 600.0), 5.0, "how long to wait for a connection or a lock")


class _Moment(TypedDict):
    """A time in microseconds, and the name of the clock it is read from."""

    on: str
    at: int


class SqlKeyValue(KeyValue):
    """``sqlite:FILE`` or ``postgresql://USER@HOST/NAME`` and the like, in the table ``taskbus_kv``.

    Time is that of the database server. A file is used on one machine only, and its time is that since the machine
    started, which nobody sets; what was to expire in an earlier run of the machine has expired. ``machine`` replaces
    that clock: it gives its name, and seconds.
    """

    def __init__(self, url: BusURL, *, machine: Callable[[], tuple[str, float]] | None = None) -> None:
        options = parse_options(url, _Options)
        self._shown = str(url)
        self._secret = url.password.reveal() if url.password else ""
        self._timeout = options.timeout
        self._machine = machine or _since_boot
        self._engine = _engine(url, options.timeout)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="taskbus-kv")
        self._tidied = 0.0
        self._dice = random.Random()
        self._closed = False

    async def open(self) -> None:
        await self._run(_metadata.create_all, f"opening {self._shown}")

    async def get(self, key: str) -> Entry | None:
        check_key(key)

        def work(tx: Connection) -> Entry | None:
            row = tx.execute(_GET, {"key": key, **self._now(tx)}).one_or_none()
            return None if row is None else Entry(bytes(row.value), row.revision)

        return await self._run(work, f"reading {key} in {self._shown}", writes=False)

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        def work(tx: Connection) -> int:
            now = self._now(tx)
            self._tidy(tx, now)
            tx.execute(_MAKE_ROOM, {"key": key, **now})
            return self._insert(tx, key, value, now, ttl)

        return await self._change(key, value, work, "writing")

    async def update(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        def work(tx: Connection) -> int:
            now = self._now(tx)
            self._take_away(tx, key, revision, now)
            return self._insert(tx, key, value, now, ttl)

        return await self._change(key, value, work, "writing")

    async def delete(self, key: str, revision: int) -> None:
        def work(tx: Connection) -> None:
            self._take_away(tx, key, revision, self._now(tx))

        await self._change(key, b"", work, "deleting")

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.wrap_future(self._thread.submit(self._engine.dispose))
            self._thread.shutdown()

    async def _change(self, key: str, value: bytes, work: Callable[[Connection], Returned], how: str) -> Returned:
        doing = f"{how} {check_key(key)} in {self._shown}"
        if len(value) > _LARGEST:
            text = f"{doing}: {len(value)} bytes, the limit is {_LARGEST}"
            raise TooLargeError(text, size=len(value), limit=_LARGEST)
        return await self._run(work, doing)

    def _take_away(self, tx: Connection, key: str, revision: int, now: _Moment) -> None:
        if tx.execute(_TAKE_AWAY, {"key": key, "seen": revision, **now}).rowcount != 1:
            raise WrongRevisionError(f"{key} in {self._shown} was changed by somebody else")

    def _insert(self, tx: Connection, key: str, value: bytes, now: _Moment, ttl: float | None) -> int:
        expires = None if ttl is None else now["at"] + round(ttl * _MICRO)
        row = {"name": key, "value": value, "clock": now["on"], "expires": expires}
        try:
            primary = tx.execute(_INSERT, row).inserted_primary_key
        except IntegrityError as error:
            raise WrongRevisionError(f"something stands under {key} in {self._shown}") from error
        return int(primary[0]) if primary is not None else 0

    def _tidy(self, tx: Connection, now: _Moment) -> None:
        """Delete what has expired, now and then: whose key never comes again would stay for ever."""
        if time.monotonic() - self._tidied < _TIDY:
            return
        gone = list(tx.execute(_EXPIRED, {**now}).scalars())
        if gone:
            tx.execute(_TIDY_UP, {"gone": gone, **now})
        if len(gone) < _MOST:
            self._tidied = time.monotonic()

    def _now(self, tx: Connection) -> _Moment:
        query = _NOW.get(tx.dialect.name)
        if query is not None:
            return {"on": "", "at": int(tx.execute(query).scalar_one())}
        name, seconds = self._machine()
        return {"on": name, "at": round(seconds * _MICRO)}

    async def _run(self, work: Callable[[Connection], Returned], doing: str, *, writes: bool = True) -> Returned:
        if self._closed:
            raise ClosedError(f"{doing}: it is closed")
        return await asyncio.wrap_future(self._thread.submit(self._call, work, doing, writes))

    def _call(self, work: Callable[[Connection], Returned], doing: str, writes: bool) -> Returned:
        end = time.monotonic() + self._timeout
        delay = _FIRST
        while True:
            committing = False
            try:
                with self._connect(writes) as connection, connection.begin() as transaction:
                    result = work(connection)
                    committing = writes
                    transaction.commit()
                    return result
            except SQLAlchemyError as error:
                if not _conflicts(error) or time.monotonic() > end:
                    raise self._told(error, doing, committing) from error
            time.sleep(delay * self._dice.uniform(0.5, 1.0))
            delay = min(_LONGEST, delay * 2)

    def _connect(self, writes: bool) -> Connection:
        connection = self._engine.connect()
        return connection if writes else connection.execution_options(taskbus_reads=True)

    def _told(self, error: SQLAlchemyError, doing: str, committing: bool) -> BusError:
        """The error of our tree, without a password."""
        orig = error.orig if isinstance(error, DBAPIError) else None
        told = " ".join(str(orig or error).split())[:500] or type(orig or error).__name__
        if self._secret:
            told = told.replace(self._secret, "***")
        message = f"{doing}: {told}"
        if committing and isinstance(error, DBAPIError) and error.connection_invalidated:
            return UnconfirmedError(f"{message}; it may have been done")
        away = isinstance(error, DBAPIError) and error.connection_invalidated
        if away or _conflicts(error) or type(orig).__name__ in ("OperationalError", "InterfaceError"):
            return UnreachableError(message)
        return UnsupportedError(message)

    def __repr__(self) -> str:
        return f"SqlKeyValue({self._shown!r})"


def _since_boot() -> tuple[str, float]:
    """Which run of this machine it is, and seconds since its start, which all processes count alike."""
    return _boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _engine(url: BusURL, timeout: float) -> Engine:
    try:
        if url.scheme == "sqlite":
            if not url.path:
                raise BusURLError("sqlite: name a file, as in sqlite:guard.db")
            engine = create_engine(URL.create("sqlite", database=url.path), connect_args={"timeout": timeout})
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        driver, extra = _DRIVERS[url.scheme]
        name = url.path.strip("/")
        if not name:
            raise BusURLError(f"{url.scheme}: name a database, as in {url.scheme}://USER@HOST/NAME")
        host = urlsplit(f"//{url.hosts[0] if url.hosts else '127.0.0.1'}")
        place = URL.create(
            driver,
            username=url.user,
            password=url.password.reveal() if url.password else None,
            host=host.hostname,
            port=host.port,
            database=name,
        )
        return create_engine(
            place,
            isolation_level="READ COMMITTED",
            pool_size=1,
            max_overflow=0,
            connect_args=_limits(extra, timeout),
        )
    except ModuleNotFoundError as error:
        extra = _DRIVERS[url.scheme][1]
        raise MissingExtraError(
            f"{url.scheme}: needs {error.name}: pip install 'taskbus[{extra}]'", extra=extra
        ) from None
    except (ArgumentError, ValueError):
        raise BusURLError(f"{url.scheme}: the URL cannot be read: write {url.scheme}://USER@HOST/NAME") from None


def _limits(driver: str, timeout: float) -> dict[str, Any]:
    """How the driver is told that a server which does not answer is not to be waited for."""
    seconds = max(1, round(timeout))
    if driver == "mysql":
        return {"connect_timeout": seconds, "read_timeout": seconds, "write_timeout": seconds}
    return {
        "connect_timeout": seconds,
        "options": f"-c statement_timeout={seconds * 1000}",
        "keepalives_idle": seconds,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "tcp_user_timeout": seconds * 1000,
    }


def _set_up_sqlite(connection: Any, record: object) -> None:
    # The driver would begin transactions by itself, and only at the first write: two could then read the same.
    connection.isolation_level = None
    # What expires is not worth waiting for the disk: a killed process loses nothing of it.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("taskbus_reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _conflicts(error: SQLAlchemyError) -> bool:
    """Whether the same transaction may succeed when repeated now: a lock, or another transaction."""
    orig = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(orig, sqlite3.Error):
        return getattr(orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    number = orig.args[0] if orig is not None and orig.args else None
    return any(code in (*_CONFLICTS, *_MAKING) for code in (getattr(orig, "sqlstate", None), number))
