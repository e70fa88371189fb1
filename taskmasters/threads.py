"""Calls that may hang, as those to a disk of a server that is away: in threads that nobody waits for at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

Returned = TypeVar("Returned")


async def in_thread(work: Callable[[], Returned]) -> Returned:
    """Call ``work`` in a thread of its own. Cancelling this leaves the thread behind, and its result is thrown away."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Returned] = loop.create_future()

    def finish(result: Returned | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # handed to whoever waits
            error = caught
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:
            return  # the loop has ended meanwhile

    threading.Thread(target=run, name="taskbus-look", daemon=True).start()
    return await future
