"""A worker that does nothing, or pretends to do what the task's value says. For trying things out and for measuring."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from task.context import Context
from task.outcome import Outcome, Result, complete, error
from task.params import Seconds
from task.worker import Worker

__all__ = ["Noop", "Simulation", "main"]

_COMPLETE = complete()


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a task's value asks to be simulated: ``?duration=2ms&variance=1ms&fail_rate=0.01&result=warn``.

    It takes ``duration``, give or take ``variance`` at most. Of the tasks ``fail_rate`` (0 to 1) end with ``error``,
    the others with ``result``.
    """

    duration: Seconds = 0.0
    variance: Seconds = 0.0
    fail_rate: float = 0.0
    result: Result = Result.COMPLETE

    def __post_init__(self) -> None:
        if self.duration < 0 or self.variance < 0:
            raise ValueError("duration and variance cannot be negative")
        if not 0 <= self.fail_rate <= 1:
            raise ValueError(f"fail_rate is from 0 to 1, not {self.fail_rate:g}")


class Noop(Worker):
    """Simulates what the value asks for; one without ``?`` does nothing.

    Chance depends on the task's id alone, so that the same tasks fail in every run. Other keys are ignored.
    """

    type = "noop"

    def do_task(self, ctx: Context) -> Outcome:
        if "?" not in self.task.value:
            return _COMPLETE
        asked = self.task.params(Simulation)
        chance = random.Random(self.task.id or self.task.value)
        duration = asked.duration + asked.variance * chance.uniform(-1, 1)
        if duration > 0 and ctx.wait(duration):
            ctx.raise_if_cancelled()
        if chance.random() < asked.fail_rate:
            return error("failed, as fail_rate asks")
        return Outcome(asked.result)


def main(args: Sequence[str], prog_name: str) -> int:
    """Run it as an application. Returns the exit code."""
    from task.app import run_command

    return run_command(Noop, list(args), prog_name=prog_name)
