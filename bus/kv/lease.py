"""Holding a key of a store for as long as one lives: at most one holder at a time, and none for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bus.errors import BusError, WrongRevisionError
from bus.kv.contract import Entry, KeyValue

__all__ = ["Lease"]


class Lease:
    """One holder's wish for ``key``. ``value`` stands there while it is held, and must be nobody else's.

    The store forgets the entry ``seconds`` after it was renewed last, by its own clock. The holder counts from before
    it asked, by ``monotonic``, so it knows no later than anybody else that it may be over. Every change names the
    revision it replaces: who lost the key, having stood still, changes nothing any more.

    A call that raised a transient BusError may be made again: whether the one before was done after all is read back.
    """

    def __init__(
        self,
        store: KeyValue,
        key: str,
        value: bytes,
        seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key
        self.value = value
        self._store = store
        self._seconds = seconds
        self._monotonic = monotonic
        self._revision = 0
        self._since = 0.0
        self._tried = False
        #: The revision with which it was acquired: greater than that of every earlier holder. 0 before.
        self.fence = 0

    @property
    def left(self) -> float:
        """Seconds for which it is surely held; 0 if it may not be."""
        return max(0.0, self._since + self._seconds - self._monotonic()) if self._revision else 0.0

    async def acquire(self) -> Entry | None:
        """Take the key if nothing stands there. Returns what else does, None if it was taken. Raises BusError."""
        while True:
            began = self._monotonic()
            try:
                revision = await self._store.create(self.key, self.value, ttl=self._seconds)
            except WrongRevisionError:
                found = await self._store.get(self.key)
                if found is None:
                    continue
                if found.value != self.value:
                    return found
                # An earlier try was done after all. How long ago nobody knows, so it is renewed.
                self._revision = self.fence = found.revision
                return None if await self.renew() else await self._store.get(self.key)
            self._revision = self.fence = revision
            self._since = began
            return None

    async def renew(self) -> bool:
        """Hold it for the whole time again. False if it is lost. Raises BusError."""
        while self._revision:
            began = self._monotonic()
            try:
                self._revision = await self._store.update(self.key, self.value, self._revision, ttl=self._seconds)
            except WrongRevisionError:
                found = await self._store.get(self.key)
                self._revision = found.revision if found is not None and found.value == self.value else 0
            else:
                self._since = began
                return True
        return False

    async def end(self, last: bytes | None = None, *, ttl: float | None = None) -> bool:
        """Give the key back, or leave ``last`` there for ``ttl`` seconds, which must be nobody else's either.

        Returns whether it was held until then: if not, nothing was changed, and what was done under it must not count.
        Raises BusError.
        """
        while self._revision:
            surely = self.left > 0
            try:
                if last is None:
                    await self._store.delete(self.key, self._revision)
                else:
                    await self._store.update(self.key, last, self._revision, ttl=ttl)
            except WrongRevisionError:
                found = await self._store.get(self.key)
                if found is not None and found.value == self.value:
                    self._revision = found.revision
                    continue
                self._revision = 0
                if found is None:
                    # What cannot have lapsed yet was deleted by the earlier try, if there was one.
                    return last is None and self._tried and surely
                return found.value == last
            except (BusError, asyncio.CancelledError):
                self._tried = True
                raise
            self._revision = 0
            return True
        return False
