"""From received bytes to an assignment, or to the reason why not: the checks a task passes before it is begun."""

from __future__ import annotations

from datetime import UTC, datetime

from bus import Delivery
from task.assignment import Assignment
from task.codec import decode
from task.context import Context
from task.delaying import attempts_before
from task.errors import DecodeError
from task.options import WorkerOptions
from task.task import Task, derive_id
from task.times import parse_time
from task.verdict import Judge, Verdict

__all__ = ["Admission"]


class Admission:
    """The checks of one worker application: readable, of its type, due, not expired, not a crasher."""

    def __init__(self, kind: str, options: WorkerOptions, judge: Judge) -> None:
        self._type = kind
        self._options = options
        self._judge = judge
        self._limit = options.timeout

    def admit(self, delivery: Delivery) -> Assignment | Verdict:
        """An assignment to run, or the verdict on what is not to be run."""
        try:
            task = decode(delivery.body, self._options.max_task_size)
        except DecodeError as problem:
            return self._judge.undecodable(delivery, problem)
        data = task._data
        if "id" not in data:
            # Derived, so that a redelivery of the same message has the same id; the task is ours alone as yet.
            data["id"] = derive_id("message", self._judge.topic, delivery.id, task.type, task.value)
        if data["type"] != self._type:
            return self._wrong_type(delivery, task)
        attempt = delivery.attempt + attempts_before(task) if "meta" in data else delivery.attempt
        if attempt > self._judge.max_attempts:
            return self._judge.endless(delivery, task, attempt)
        if "meta" in data and (verdict := self._by_time(delivery, task)) is not None:
            return verdict
        return Assignment(delivery, task, Context(task, attempt, self._limit))

    def _wrong_type(self, delivery: Delivery, task: Task) -> Verdict:
        reason = f"a task of type {task.type!r} on a topic of {self._type!r} tasks"
        if self._options.wrong_type == "ignore":
            return self._judge.ignored(delivery)
        if self._options.wrong_type == "reject":
            return self._judge.refused(delivery, task, reason)
        return self._judge.dead(delivery, "wrong-type", reason, task)

    def _by_time(self, delivery: Delivery, task: Task) -> Verdict | None:
        """``meta`` may say ``expires`` and ``not_before``, as RFC 3339 times."""
        for key in ("expires", "not_before"):
            text = task.meta.get(key)
            if text is None:
                continue
            try:
                seconds = (parse_time(text) - datetime.now(UTC)).total_seconds()
            except ValueError:
                return self._judge.dead(
                    delivery, "bad-time", f"meta {key!r} is not an RFC 3339 time: {text[:60]!r}", task
                )
            if key == "expires" and seconds <= 0:
                return self._judge.dead(delivery, "expired", f"expired at {text}", task)
            if key == "not_before" and seconds > 0:
                return self._judge.later(delivery, task, seconds)
        return None
