"""Whether the event loop of the process still turns, seen from another thread."""

from __future__ import annotations

import asyncio
import time

__all__ = ["Pulse"]


class Pulse:
    """Asks the loop now and then to answer. ``ended`` is true once it is closed."""

    def __init__(self, stall: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._stall = stall
        self._seen = self._asked = time.monotonic()
        self.ended = False

    def beats(self) -> bool:
        """False when the loop has not answered for ``stall`` seconds."""
        now = time.monotonic()
        if now - self._asked >= min(self._stall / 4, 5.0):
            self._asked = now
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                self.ended = True
        return now - self._seen < self._stall

    def _answer(self) -> None:
        self._seen = time.monotonic()
