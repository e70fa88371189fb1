"""Many callers, one write: what is handed in while a write runs goes out together in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Item = TypeVar("Item")


class Batcher(Generic[Item]):
    """Runs ``flush`` over batches of items, one batch at a time and in order. ``submit`` returns when its item's did.

    An item whose caller was cancelled is still flushed. What ``flush`` raises is raised to every caller of the batch.
    """

    def __init__(self, flush: Callable[[list[Item]], Awaitable[None]]) -> None:
        self._flush = flush
        self._waiting: list[tuple[Item, asyncio.Future[None]]] = []
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> None:
        """Have ``item`` flushed. Raises what ``flush`` raised."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        await done

    async def drain(self) -> None:
        """Return when everything submitted was flushed."""
        while self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._flush_one(batch)
        finally:
            self._running = None

    async def _flush_one(self, batch: list[tuple[Item, asyncio.Future[None]]]) -> None:
        try:
            await self._flush([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        # Whatever went wrong belongs to the callers that wait for it, not to this task.
        except Exception as error:
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
        else:
            for _, done in batch:
                if not done.done():
                    done.set_result(None)
