"""One SQLite connection on a thread of its own, with concurrent writes joined into one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from bus.errors import BusError, ClosedError
from bus.sql.schema import prepare
from bus.sql.trouble import explain

__all__ = ["Database", "connect"]

#: Seconds a write waits for another process's transaction to end.
_BUSY = 30.0
#: The most calls joined into one transaction.
_MOST = 200
_SQLITE_BUSY, _SQLITE_LOCKED = 5, 6
Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Any]


class _Job:
    __slots__ = ("error", "future", "result", "work", "write")

    def __init__(self, work: Work, write: bool, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.write = write
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Database:
    """Runs functions on the connection's thread. A function may raise a BusError if it has changed nothing yet."""

    def __init__(self, path: str, synchronous: str) -> None:
        self._path = path
        self._synchronous = synchronous
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        #: Another text for another database, even one later made at the same path.
        self.epoch = ""

    async def open(self) -> None:
        """Connect, and make the tables in a new file.

        Raises:
            BusError: if that cannot be done.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[str] = loop.create_future()
        self._thread = threading.Thread(target=self._serve, args=(loop, opened), name="sqlite", daemon=True)
        self._thread.start()
        try:
            self.epoch = await opened
        except BusError:
            self._thread = None
            raise

    async def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of ``work``, done in a transaction that is committed and, as far as asked for, synced."""
        return await self._submit(work, write=True)

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of ``work``, which changes nothing."""
        return await self._submit(work, write=False)

    async def close(self) -> None:
        """Finish what was asked for and disconnect. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    async def _submit(self, work: Callable[[sqlite3.Connection], Result], *, write: bool) -> Result:
        if self._thread is None:
            raise ClosedError("the sqlite bus is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(work, write, future))
        return await future  # type: ignore[no-any-return]

    def _serve(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[str]) -> None:
        try:
            connection = connect(self._path, self._synchronous)
            epoch = prepare(connection, self._path)
        except (sqlite3.Error, BusError) as error:
            problem = explain(error, self._path) if isinstance(error, sqlite3.Error) else error
            _call(loop, _settle, opened, None, problem)
            return
        _call(loop, _settle, opened, epoch, None)
        while (job := self._jobs.get()) is not None:
            batch = [job, *self._waiting()]
            for one in batch:
                if not one.write:
                    self._run(connection, one)
            writes = [one for one in batch if one.write]
            if writes and not self._transact(connection, writes):
                # Something failed the whole transaction; each alone shows whose fault it was.
                for one in writes:
                    self._transact(connection, [one])
            _call(loop, _settle_all, batch)
        connection.close()

    def _waiting(self) -> list[_Job]:
        jobs: list[_Job] = []
        while len(jobs) < _MOST:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return jobs

    def _transact(self, connection: sqlite3.Connection, jobs: list[_Job]) -> bool:
        """Run ``jobs`` in one transaction. False if it failed and there are several: none of them is done."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._run(connection, job)
                if isinstance(job.error, sqlite3.Error):
                    raise job.error
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            if len(jobs) > 1:
                return False
            jobs[0].error = error
        return True

    def _run(self, connection: sqlite3.Connection, job: _Job) -> None:
        job.error = None
        try:
            job.result = job.work(connection)
        except Exception as error:  # whatever it is belongs to the caller, not to this thread
            job.error = error


def connect(path: str, synchronous: str) -> sqlite3.Connection:
    """A connection in WAL mode, in which readers do not wait for writers.

    Raises:
        sqlite3.Error.
    """
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, cached_statements=256)
    end = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            # Changing the mode does not wait for others doing the same, whatever the timeout says.
            if error.sqlite_errorcode & 0xFF not in (_SQLITE_BUSY, _SQLITE_LOCKED) or time.monotonic() > end:
                connection.close()
                raise
            time.sleep(0.01)
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA journal_size_limit=67108864")
    return connection


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    # The loop may have ended with its application; then nobody waits for the answer.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _settle_all(jobs: list[_Job]) -> None:
    for job in jobs:
        _settle(job.future, job.result, job.error)
