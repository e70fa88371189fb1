"""What a worker says about a task it has done."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from bus.units import parse_duration

__all__ = ["Outcome", "Result", "alert", "complete", "error", "reject", "retry_later", "warn"]


class Result(enum.StrEnum):
    """The ``result`` of a done task."""

    COMPLETE = "complete"
    ERROR = "error"  #: failed; may be retried
    ALERT = "alert"  #: failed; never retried, a person should know now
    WARN = "warn"  #: done, with something a person may want to know; not retried


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt at a task. Made by :func:`complete`, :func:`error` and their kin.

    ``meta`` is merged over the task's meta in the done task. ``retry_in`` (seconds) asks for another attempt instead
    of ending the task. ``rejected`` marks a task that is wrong in itself: it is dead-lettered and never retried.
    """

    result: Result
    msg: str = ""
    meta: Mapping[str, str] | None = None
    retry_in: float | None = None
    rejected: bool = False


#: Outcomes are immutable, so the commonest one is made once.
_COMPLETE = Outcome(Result.COMPLETE)


def complete(msg: str = "", **meta: str) -> Outcome:
    """The task is done."""
    if not msg and not meta:
        return _COMPLETE
    return Outcome(Result.COMPLETE, msg, meta or None)


def error(msg: str, **meta: str) -> Outcome:
    """The task failed and may be retried, as ``--retries`` says."""
    return Outcome(Result.ERROR, msg, meta or None)


def alert(msg: str, **meta: str) -> Outcome:
    """The task failed, a retry will not help and a person should know now."""
    return Outcome(Result.ALERT, msg, meta or None)


def warn(msg: str, **meta: str) -> Outcome:
    """The task is done, but something about it deserves a look."""
    return Outcome(Result.WARN, msg, meta or None)


def reject(msg: str, **meta: str) -> Outcome:
    """The task itself is wrong (a bad value, say): done with ``error``, dead-lettered, never retried."""
    return Outcome(Result.ERROR, msg, meta or None, rejected=True)


def retry_later(delay: float | str, msg: str = "") -> Outcome:
    """Not now: have the task done again after ``delay`` (seconds, or a text such as ``"4h"``), by any instance."""
    seconds = parse_duration(delay) if isinstance(delay, str) else float(delay)
    return Outcome(Result.ERROR, msg or "to be retried later", retry_in=max(0.0, seconds))
