"""A progress bar on stderr, for a person who watches a finite input being worked through."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

__all__ = ["Progress"]

_WIDTH = 30


class Progress:
    """``position`` of ``total`` bytes read, ``done`` tasks done. Writes one line, over and over, until ``finish``."""

    def __init__(self, total: int, position: Callable[[], int], done: Callable[[], int]) -> None:
        self._total = total
        self._position = position
        self._done = done
        self._began = time.monotonic()
        self._shown = False

    def tick(self) -> None:
        """Show how things stand."""
        part = min(1.0, self._position() / self._total) if self._total else 1.0
        done = self._done()
        rate = done / max(time.monotonic() - self._began, 1e-9)
        bar = "#" * int(part * _WIDTH)
        sys.stderr.write(f"\r[{bar:<{_WIDTH}}] {part:4.0%}  {done:,} done, {rate:,.0f}/s \033[K")
        sys.stderr.flush()
        self._shown = True

    def finish(self) -> None:
        """Show the end and leave the line."""
        if self._shown:
            self.tick()
            sys.stderr.write("\n")
            sys.stderr.flush()
