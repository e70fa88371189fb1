"""A database, and the one thread in which its transactions are done."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from bus import MissingExtraError
from taskmasters.store.direct import Direct
from taskmasters.store.place import Place, find_place
from taskmasters.store.schema import Schema, prepare
from taskmasters.store.trouble import as_state_error, is_conflict

__all__ = ["Store", "open_store"]

Returned = TypeVar("Returned")

#: Seconds a transaction is repeated for, before the first and the longest before any repetition.
_PATIENCE, _FIRST, _LONGEST = 10.0, 0.005, 0.5
#: Seconds a statement waits for a lock, and for a connection to be made.
_LOCK_WAIT, _CONNECT_WAIT = 5, 10


class Store:
    """One open database. Made by :func:`open_store`; methods may be called from any thread.

    Transactions are serializable: what one reads is not changed by another before it ends.
    """

    def __init__(self, place: Place, engine: Engine, thread: Executor, direct: Direct | None = None) -> None:
        #: The database's name for people, without secrets.
        self.shown = place.shown
        self._engine = engine
        self._direct = direct
        self._secret = str(place.url.password or "")
        self._thread = thread
        self._at_work: threading.Thread | None = None
        self._dice = random.Random()

    async def run(self, work: Callable[[Connection], Returned]) -> Returned:
        """Call ``work`` in one transaction, committed when this returns. See :meth:`call`.

        Cancelling this does not undo a transaction that has begun.
        """
        return await asyncio.wrap_future(self._thread.submit(self._call, work))

    def call(self, work: Callable[[Connection], Returned]) -> Returned:
        """Call ``work`` in one transaction and wait for it.

        It is called again if the database was locked, if another transaction came in between, or if the connection was
        lost before the commit; so it should do nothing beside what it does to the connection. What ``work`` raises
        undoes the transaction and is raised here.

        Raises:
            StateError: if the database cannot be used. ``transient`` if it may be later; when the connection was lost
                while committing, the transaction may have been done.
            StateDataError: if the database refuses these values.
        """
        if threading.current_thread() is self._at_work:
            raise RuntimeError("a transaction cannot wait for another one of the same store")
        return self._thread.submit(self._call, work).result()

    def close(self) -> None:
        """End the transaction that runs, and let go of the database. Idempotent."""
        try:
            self._thread.submit(self._dispose).result()
        except RuntimeError:
            return
        self._thread.shutdown()

    def prepare(self, *schemas: Schema) -> None:
        """Create the tables of these if they are missing.

        Raises:
            StateError: if the database cannot be used, or its tables are of another version.
        """
        try:
            self._thread.submit(prepare, self._engine, schemas, self.shown).result()
        except SQLAlchemyError as error:
            raise as_state_error(error, self.shown, self._secret) from error

    def __repr__(self) -> str:
        return f"Store({self.shown!r})"

    def _dispose(self) -> None:
        if self._direct is not None:
            self._direct.close()
        self._engine.dispose()

    def _call(self, work: Callable[[Connection], Returned]) -> Returned:
        self._at_work = threading.current_thread()
        try:
            return self._repeated(work)
        finally:
            self._at_work = None

    def _repeated(self, work: Callable[[Connection], Returned]) -> Returned:
        end = time.monotonic() + _PATIENCE
        delay = _FIRST
        while True:
            committing = False
            try:
                if self._direct is not None:
                    return self._direct.transaction(work)
                with self._engine.connect() as connection, connection.begin() as transaction:
                    result = work(connection)
                    committing = True
                    transaction.commit()
                    return result
            except SQLAlchemyError as error:
                lost = committing and getattr(error, "connection_invalidated", False)
                if lost or not is_conflict(error) or time.monotonic() > end:
                    raise as_state_error(error, self.shown, self._secret) from error
            time.sleep(delay * self._dice.uniform(0.5, 1.0))
            delay = min(_LONGEST, delay * 2)


def open_store(text: str, *schemas: Schema, here: bool = False) -> Store:
    """Open the database that ``text`` names (see :func:`find_place`) with the tables of ``schemas``.

    With ``here`` transactions are done in the calling thread, which must be the same each time, and one connection is
    kept for them: simulations do thousands, and going to and fro between threads would take longer than the work.
    ``text`` must be ``:memory:`` then.

    Raises:
        SettingsError: if ``text`` names none.
        MissingExtraError: if its driver is not installed.
        StateError: if it cannot be used, or holds tables of another version.
    """
    place = find_place(text)
    engine = _engine(place)
    if here:
        store = Store(place, engine, _Here(), Direct(engine))
    else:
        store = Store(place, engine, ThreadPoolExecutor(1, thread_name_prefix="taskbus-store"))
    try:
        store.prepare(*schemas)
    except BaseException:
        store.close()
        raise
    return store


class _Here(Executor):
    """Does at once, and itself, what it is given."""

    def submit(self, fn: Callable[..., Returned], /, *args: Any, **kwargs: Any) -> Future[Returned]:
        future: Future[Returned] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)
        return future


def _engine(place: Place) -> Engine:
    try:
        if place.sqlite:
            engine = create_engine(place.url, connect_args={"timeout": _LOCK_WAIT})
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        return create_engine(
            place.url,
            isolation_level="SERIALIZABLE",
            pool_size=1,
            max_overflow=0,
            connect_args={"connect_timeout": _CONNECT_WAIT},
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{place.shown} needs {error.name}: pip install 'taskbus[{place.extra}]'", extra=place.extra
        ) from None


def _set_up_sqlite(connection: Any, record: object) -> None:
    # The driver would begin transactions by itself, and only at the first write: two could then read the same.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
