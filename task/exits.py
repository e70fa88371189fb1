"""What the exit code of an application tells."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """Exit codes. Everything but ``OK`` also says why on stderr."""

    OK = 0  #: the input ended, or a stop was asked for and nothing was cut short
    FAILED = 1  #: the work that was asked for failed
    USAGE = 2  #: wrong options, configuration, rule file or worker
    BUS = 3  #: the bus or the output cannot be used
    INTERRUPTED = 4  #: stopped; running tasks did not end within the kill time and were handed back
    STUCK = 5  #: too many tasks would not end; start a fresh process
