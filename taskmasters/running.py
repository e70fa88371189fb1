"""What the taskmaster applications have in common: from a request to stop to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from task.signals import stop_on_signals

__all__ = ["Taskmaster", "run_until_stopped"]


class Taskmaster(Protocol):
    """What runs. Cancelling ``run`` must lose nothing; ``stop`` makes it end by itself."""

    async def run(self) -> None:
        """Work until stopped."""
        ...

    def stop(self) -> None:
        """Begin nothing more."""
        ...


async def run_until_stopped(
    taskmaster: Taskmaster, kill_time: float, started: Callable[[], None] = lambda: None
) -> bool:
    """Run it until it ends. SIGTERM or SIGINT stops it: it has ``kill_time`` seconds, less after a second signal.

    ``started`` is called once signals do so: whoever is told of the start may send one at once. Returns False if it was
    cut short. Raises what ``run`` raises.
    """
    stopping, hurry = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            hurry.set()
        stopping.set()
        taskmaster.stop()

    running = asyncio.ensure_future(taskmaster.run())
    waits = [asyncio.ensure_future(event.wait()) for event in (stopping, hurry)]
    try:
        with stop_on_signals(stop):
            started()
            await asyncio.wait([running, waits[0]], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([running, waits[1]], return_when=asyncio.FIRST_COMPLETED, timeout=kill_time)
        if running.done():
            running.result()
            return True
        return False
    finally:
        for future in (running, *waits):
            future.cancel()
        await asyncio.gather(running, *waits, return_exceptions=True)
