"""What a running task knows about itself, and how it learns that it should stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import MutableMapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from task.errors import Interrupted

if TYPE_CHECKING:
    from task.task import Task

__all__ = ["CancelReason", "Context"]

_log = logging.getLogger("taskbus.task")


class CancelReason(StrEnum):
    """Why a task was told to stop."""

    SHUTDOWN = "shutdown"  #: the application stops; the task is handed back to the bus
    TIMEOUT = "timeout"  #: it ran longer than ``--timeout``
    LEASE_LOST = "lease-lost"  #: the bus has given it to another instance; this result will not count


class _TaskLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the task's fields to the user's own, which a plain adapter would drop."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class Context:
    """Given to ``do_task``. Its methods may be called from any thread."""

    __slots__ = ("_deadline", "_event", "_limit", "_log", "_meta", "_progress", "_reason", "attempt", "task")

    def __init__(self, task: Task, attempt: int = 1, limit: float | None = None) -> None:
        #: The task being done.
        self.task = task
        #: 1 at the first attempt; redeliveries after a crash count too.
        self.attempt = attempt
        self._limit = limit
        self._deadline: float | None = None
        self._reason: CancelReason | None = None
        self._event: threading.Event | None = None
        self._meta: dict[str, str] | None = None
        self._progress: tuple[float, str] | None = None
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the task should stop now. Look at it between steps of long work."""
        return self._reason is not None

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why it should stop; None while it should not."""
        return self._reason

    @property
    def remaining(self) -> float | None:
        """Seconds until the time limit cancels this task; None without a limit. Never negative."""
        return self._limit if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def meta(self) -> dict[str, str]:
        """Texts to merge over the task's meta in the done task."""
        if self._meta is None:
            self._meta = {}
        return self._meta

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the task's type and id."""
        if self._log is None:
            self._log = _TaskLog(_log, {"task_type": self.task.type, "task_id": self.task.id})
        return self._log

    def raise_if_cancelled(self) -> None:
        """Leave ``do_task`` if the task should stop.

        Raises:
            Interrupted: let it pass; what was not finished is handed back or retried as the reason demands.
        """
        if self._reason is not None:
            raise Interrupted(f"interrupted: {self._reason}")

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake at once when the task should stop. Returns True if it should.

        For ``def do_task``; an ``async def do_task`` sleeps with ``asyncio.sleep`` and is cancelled.
        """
        if self._event is None:
            self._event = threading.Event()
        if self._reason is not None:
            return True
        return self._event.wait(seconds)

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far the task is, 0 to 1. Shown by the status page."""
        self._progress = (min(1.0, max(0.0, fraction)), text)

    def _begin(self, now: float) -> None:
        """The time limit counts from ``now`` (monotonic). For the launcher."""
        if self._limit is not None:
            self._deadline = now + self._limit

    def _cancel(self, reason: CancelReason) -> None:
        """Tell the task to stop. The first reason stands. For the launcher."""
        if self._reason is None:
            self._reason = reason
        if self._event is not None:
            self._event.set()
