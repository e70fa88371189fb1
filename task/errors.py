"""Errors about tasks. They continue the tree of ``bus.errors``:

TaskbusError
├── BusError …
└── TaskError                  something about a task or a worker
    ├── DecodeError            bytes that are not a task; carries a short ``code``
    ├── ParamsError            a task value that does not fit its parameters class; names every wrong field
    ├── SettingsError          an option, environment variable or configuration file is wrong
    ├── WorkerError            the worker cannot be loaded or started, or is stuck
    ├── StateError             what a taskmaster must remember cannot be kept or read
    │   └── StateDataError     the database refuses these very values
    └── Stop                   raised by user code inside ``do_task`` to end the task in a particular way
        ├── RetryLater         do this task again after a delay
        ├── Reject             this task is wrong; never retry it
        └── Interrupted        the task was told to stop (``Context.raise_if_cancelled``)
"""

from __future__ import annotations

from bus import TaskbusError
from bus.units import parse_duration

__all__ = [
    "DecodeError",
    "Interrupted",
    "ParamsError",
    "Reject",
    "RetryLater",
    "SettingsError",
    "StateDataError",
    "StateError",
    "Stop",
    "TaskError",
    "WorkerError",
]


class TaskError(TaskbusError):
    """Something about a task or a worker."""


class DecodeError(TaskError):
    """These bytes are not a task.

    ``code`` is one of ``too-large``, ``not-json``, ``not-object``, ``no-type``, ``bad-field``, ``bad-time``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ParamsError(TaskError):
    """The task's value does not fit its parameters class. The text names every field that is wrong."""


class SettingsError(TaskError):
    """An option, environment variable or configuration file is wrong. The text names the place and the nearest key."""


class WorkerError(TaskError):
    """The worker cannot be loaded or started; or, with ``stuck``, too many of its tasks would not end."""

    def __init__(self, message: str, *, stuck: bool = False) -> None:
        super().__init__(message)
        self.stuck = stuck


class StateError(TaskError):
    """The durable state of a taskmaster cannot be used. The text names the place, and shows no password.

    ``transient`` says whether the same call may succeed later without a change to anything but the database.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class StateDataError(StateError):
    """The database works, and refuses these values: too long, or against a rule of its own."""


class Stop(TaskError):
    """Base of the exceptions a worker raises to end its task in a particular way."""


class RetryLater(Stop):
    """Raise it in ``do_task`` to have the task done again, by any instance, after ``delay``.

    ``delay`` is seconds or a text such as ``"4h"``. It is repeated whatever ``--retries`` says, until the bus has
    delivered it ``--max-attempts`` times.
    """

    def __init__(self, delay: float | str, msg: str = "") -> None:
        super().__init__(msg or "to be retried later")
        self.delay = parse_duration(delay) if isinstance(delay, str) else float(delay)
        self.msg = msg


class Reject(Stop):
    """Raise it in ``do_task`` when the task itself is wrong: done with ``error``, dead-lettered, never retried."""


class Interrupted(Stop):
    """The task was told to stop: shutdown, time limit or lost lease. Let it pass; the launcher knows what to do."""
