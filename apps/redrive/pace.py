"""Sending no faster than so many in a second."""

from __future__ import annotations

import asyncio

__all__ = ["Pace", "parse_rate"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: Seconds of sending that may go out at once.
_BURST = 0.1


def parse_rate(text: str) -> float:
    """How many in a second: ``100/s``, ``30/m``, ``500/h``; a bare number is per second.

    Raises:
        ValueError: with a text that says what is accepted.
    """
    number, slash, unit = text.strip().partition("/")
    try:
        count = float(number)
        rate = count / (_UNITS[unit.strip()] if slash else 1.0)
    except (ValueError, KeyError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ValueError(f"{text!r} is not a rate; write how many in a second, minute or hour: 100/s, 30/m, 500/h")
    return rate


class Pace:
    """``rate`` messages in a second; None is without limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = 0.0
        #: How many may be sent at once, at most.
        self.batch = 500 if rate is None else max(1, min(500, int(rate * _BURST)))

    async def wait(self, count: int) -> None:
        """Return once ``count`` more may be sent."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        begin = max(self._next, now)
        self._next = begin + count / self._rate
        if begin > now:
            await asyncio.sleep(begin - now)
