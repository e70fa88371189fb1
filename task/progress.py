"""A progress bar on stderr, for a person who watches a finite input being worked through."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable

from bus.units import format_duration
from task.logs import show_footer

__all__ = ["Progress"]

#: Characters of the bar itself.
_WIDTH = 30
#: Width of a terminal that does not tell it.
_COLUMNS = 80


class Progress:
    """In the last line of a terminal: how far ``position`` of ``total`` bytes has come, how many tasks are ``done``.

    Shows nothing when ``total`` is None, stderr is no terminal, or the terminal cannot go back to the start of a line.
    Log lines appear above it. Call ``tick`` now and then, from the thread that may ask ``position`` and ``done``, and
    ``finish`` at the end.
    """

    def __init__(self, total: int | None, position: Callable[[], int], done: Callable[[], int]) -> None:
        self._total = total
        self._position = position
        self._done = done
        self._began = time.monotonic()
        self._shown = total is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def tick(self) -> None:
        """Show how things stand."""
        if self._shown:
            show_footer(self._text())

    def finish(self) -> None:
        """Leave the last state of things as a line of its own."""
        if self._shown:
            self._shown = False
            show_footer("")
            with contextlib.suppress(OSError):
                sys.stderr.write(self._text() + "\n")

    def _text(self) -> str:
        part = min(1.0, self._position() / self._total) if self._total else 1.0
        done, seconds = self._done(), time.monotonic() - self._began
        bar = "#" * int(part * _WIDTH)
        text = f"[{bar:<{_WIDTH}}] {part:4.0%}  {done:,} done, {done / max(seconds, 1e-3):,.0f}/s"
        if 0 < part < 1 and seconds >= 1:
            text += f", {format_duration(round(seconds / part - seconds))} left"
        # A line that wraps could not be taken away again.
        return text[: _columns() - 1]


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS
