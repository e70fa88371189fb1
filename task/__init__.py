"""Workers for small JSON tasks: the task object, the worker, and the application around it.

class HelloWorld(Worker):
    type = "hello-world"

    def do_task(self, ctx: Context) -> Outcome:
        return complete(f"hello {self.task.value}")

if __name__ == "__main__":
    run(HelloWorld)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from task.context import CancelReason, Context
from task.errors import (
    DecodeError,
    Interrupted,
    ParamsError,
    Reject,
    RetryLater,
    SettingsError,
    TaskError,
    WorkerError,
)
from task.outcome import Outcome, Result, alert, complete, error, reject, retry_later, warn
from task.task import Dialect, Task, derive_id, new_id
from task.worker import Launch, Worker

if TYPE_CHECKING:
    from task.app import run
    from task.codec import decode, encode
    from task.function import worker

__all__ = [
    "CancelReason",
    "Context",
    "DecodeError",
    "Dialect",
    "Interrupted",
    "Launch",
    "Outcome",
    "ParamsError",
    "Reject",
    "Result",
    "RetryLater",
    "SettingsError",
    "Task",
    "TaskError",
    "Worker",
    "WorkerError",
    "alert",
    "complete",
    "decode",
    "derive_id",
    "encode",
    "error",
    "new_id",
    "reject",
    "retry_later",
    "run",
    "warn",
    "worker",
]

# Importing the module task.worker has bound its name here; the decorator is to be found under it.
globals().pop("worker")

#: Loaded when first used, so that `import task` stays quick.
_LAZY = {"run": "task.app", "decode": "task.codec", "encode": "task.codec", "worker": "task.function"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'task' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
