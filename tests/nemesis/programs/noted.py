"""The worker of the nemesis: it notes that a task was begun, and takes as long as the task's value says, in seconds."""

from __future__ import annotations

import os
import time
from pathlib import Path

from task import Context, Outcome, Worker, complete, error
from tests.nemesis.ledger import Event, Pen

__all__ = ["Noted"]

_FOLDER = Path(os.environ["NEMESIS_LEDGER"])
_EXECUTED = Pen(_FOLDER, Event.EXECUTED)
_FAILED = Pen(_FOLDER, Event.FAILED)


class Noted(Worker):
    """``0.01``: it takes 10 ms. ``fail 0.01``: then it ends with error at its first attempt."""

    type = "noted"

    def do_task(self, ctx: Context) -> Outcome:
        """See the class."""
        id = self.task.id or "-"
        _EXECUTED.write([id])
        how, _, seconds = self.task.value.rpartition(" ")
        time.sleep(float(seconds))
        if how == "fail" and ctx.attempt == 1:
            _FAILED.write([id])
            return error("as the task asked")
        return complete()
