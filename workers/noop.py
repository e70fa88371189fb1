"""A worker that does nothing, or pretends to do what the task's value says. For trying things out and for measuring."""

from __future__ import annotations

import random
from collections.abc import Sequence
from urllib.parse import parse_qsl

from bus.units import parse_duration
from task.context import Context
from task.outcome import Outcome, Result, complete, reject
from task.worker import Worker

__all__ = ["Noop", "main"]

_COMPLETE = complete()


class Noop(Worker):
    """Pretends, as in ``?duration=2ms&variance=1ms&fail_rate=0.01&result=warn``; a value without ``?`` does nothing.

    ``duration`` is how long it takes, ``variance`` how much shorter or longer at most. ``fail_rate`` (0 to 1) of the
    tasks end with ``error``, the others with ``result``. Chance depends on the task's id alone, so that the same tasks
    fail in every run. Other keys are ignored.
    """

    type = "noop"

    def do_task(self, ctx: Context) -> Outcome:
        value = self.task.value
        if "?" not in value:
            return _COMPLETE
        query = dict(parse_qsl(value.partition("?")[2], keep_blank_values=True))
        try:
            duration = _time(query, "duration")
            variance = _time(query, "variance")
            fail_rate = _rate(query)
            result = Result(query.get("result", Result.COMPLETE))
        except ValueError as problem:
            return reject(f"the task's value cannot be read: {problem}")
        chance = random.Random(self.task.id or value)
        duration += variance * chance.uniform(-1, 1)
        if duration > 0 and ctx.wait(duration):
            ctx.raise_if_cancelled()
        if chance.random() < fail_rate:
            return Outcome(Result.ERROR, "failed, as fail_rate asks")
        return Outcome(result)


def _time(query: dict[str, str], key: str) -> float:
    seconds = parse_duration(query[key]) if key in query else 0.0
    if seconds < 0:
        raise ValueError(f"{key} is negative")
    return seconds


def _rate(query: dict[str, str]) -> float:
    text = query.get("fail_rate", "0")
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise ValueError(f"fail_rate {text!r} is not a number from 0 to 1")
    return rate


def main(args: Sequence[str], prog_name: str) -> int:
    """Run it as an application. Returns the exit code."""
    from task.app import run_command

    return run_command(Noop, list(args), prog_name=prog_name)
