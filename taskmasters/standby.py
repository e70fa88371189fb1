"""Taskmasters of which one instance at a time works on a state: a second one is refused, or stands by."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Generic, TypeVar

from task.errors import SettingsError, StateError
from taskmasters.leader import Leader
from taskmasters.running import Taskmaster
from taskmasters.store import Schema, Store, open_store
from taskmasters.store.seat import LEADER, SqlSeat

__all__ = ["StandBy", "TakenOverError", "sole_store"]

_log = logging.getLogger("taskbus.standby")
Working = TypeVar("Working", bound=Taskmaster)
#: Seconds: the shortest lease that leaves time to beat, and the longest anyone should wait for.
_SHORTEST, _LONGEST = 0.5, 600.0
#: Looks in a lease whether it still leads.
_LOOKS = 12


class TakenOverError(StateError):
    """Another replica has begun to work on the state: nothing was done."""


@contextmanager
def sole_store(place: str, name: str, lease: float, *schemas: Schema) -> Iterator[tuple[Store, Leader | None]]:
    """Open the state at ``place`` for the one taskmaster called ``name`` that works on it.

    A path is locked until the end, or until the process dies. Replicas that share a database, named by a URL
    (``sqlite:FILE`` too), elect the one that works, by ``lease``.

    Raises:
        SettingsError: if another process has locked it, or ``lease`` cannot be one.
        StateError, MissingExtraError: if the state cannot be used.
    """
    shared = place.startswith("sqlite:") or "://" in place
    if shared and not _SHORTEST <= lease <= _LONGEST:
        raise SettingsError(f"the lease must be {_SHORTEST:g} to {_LONGEST:g} s")
    with _locked(None if shared or place == ":memory:" else place, name):
        store = open_store(place, *schemas, *([LEADER] if shared else []))
        try:
            yield store, Leader(SqlSeat(store, name), name, lease) if shared else None
        finally:
            store.close()


@contextmanager
def _locked(place: str | None, name: str) -> Iterator[None]:
    if place is None:
        yield
        return
    # A file of its own: SQLite has locks on the database.
    path = f"{place}.{name}.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise SettingsError(f"cannot keep the state in {place}: {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            whose = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "?"
            raise SettingsError(
                f"another {name} taskmaster (process {whose}) works on the state {place}: give this one a --state of "
                f"its own, or, to have one stand by for the other, both of them --state sqlite:{place}"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)


class StandBy(Generic[Working]):
    """Runs the taskmaster that ``opened`` gives, while ``leader`` leads; without a leader, always.

    A taskmaster that is stopped in the midst must be able to begin anew: each time it leads another is opened.
    """

    def __init__(self, leader: Leader | None, lease: float, opened: Callable[[], AbstractAsyncContextManager[Working]]):
        self._leader = leader
        self._lease = lease
        self._opened = opened
        self._stopping = asyncio.Event()
        self._again = False
        #: The one at work; None while another replica is, and between two.
        self.current: Working | None = None

    @property
    def leads(self) -> bool:
        """Whether no other replica is at work."""
        return self._leader is None or self._leader.leads

    @property
    def trouble(self) -> str:
        """What keeps it from knowing who leads; empty if nothing does."""
        return "" if self._leader is None else self._leader.trouble

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        if self.current is not None:
            self.current.stop()

    def again(self) -> None:
        """Have what is at work, or is just being opened, come to its end, and open another one."""
        self._again = True
        if self.current is not None:
            self.current.stop()

    async def run(self) -> None:
        """Work, or stand by, until ``stop``. Raises what the taskmaster does."""
        while not self._stopping.is_set():
            if not await self._elected():
                return
            self._again = False
            async with self._opened() as opened:
                self.current = opened
                try:
                    ended = self._stopping.is_set() or self._again or await self._work(opened)
                finally:
                    self.current = None
            if ended and not self._again:
                return
            if not ended:
                await self._pause()

    async def _pause(self) -> None:
        """Until it was asked again who leads."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), self._lease / 3)

    async def _elected(self) -> bool:
        """Whether it leads now; False if it is to stop."""
        if self._leader is None:
            return True
        if not self._leader.leads:
            _log.info("standing by", extra={"event": "standby"})
        waits = [asyncio.ensure_future(self._leader.elected()), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return not self._stopping.is_set()
        finally:
            for wait in waits:
                wait.cancel()

    async def _work(self, taskmaster: Working) -> bool:
        """Whether it came to its end; False if it was cut short because another replica leads."""
        running = asyncio.ensure_future(taskmaster.run())
        try:
            while True:
                await asyncio.wait([running], timeout=None if self._leader is None else self._lease / _LOOKS)
                if running.done():
                    running.result()
                    return True
                if not self.leads:
                    _log.warning("this replica stands by: another leads, or may", extra={"event": "cut-short"})
                    return False
        except TakenOverError as error:
            _log.warning("%s", error, extra={"event": "cut-short"})
            return False
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
