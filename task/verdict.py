"""What happens to a message once its task has come to an end: published, tried again, handed back or dead-lettered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache

from bus import Delivery, Message
from bus.units import format_duration
from task.assignment import Assignment
from task.codec import encode, encode_done
from task.dead import DEAD, dead_letter
from task.delaying import attempts_before, delayed
from task.errors import DecodeError
from task.outcome import Outcome, Result
from task.retry import Backoff
from task.task import Task
from task.times import now_text

__all__ = ["FINISH", "Action", "Judge", "Verdict"]

_log = logging.getLogger("taskbus.worker")
#: Makes a message without the cost of naming its fields.
_new = tuple.__new__
#: Seconds of the longest delay: a hundred years, so that the moment is one the calendar has.
_LONGEST = 100 * 366 * 86400.0
_ERROR = Result.ERROR


class Action(Enum):
    """How a delivery is settled."""

    FINISH = "finish"  #: publish the messages, then acknowledge
    NACK = "nack"  #: deliver again after ``delay``, the attempt counts
    RELEASE = "release"  #: hand back after ``delay``, the attempt does not count


# Python 3.11 looks a member of an enumeration up so slowly that it shows with tiny tasks.
FINISH = Action.FINISH


@dataclass(slots=True)
class Verdict:
    """How one delivery is settled. ``result`` is what the done task says, or ``dead``, ``retried``, ``released``."""

    delivery: Delivery
    action: Action
    result: str
    messages: tuple[Message, ...] = ()
    delay: float = 0.0
    reason: str | None = None
    assignment: Assignment | None = None
    task: Task | None = None
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """The rules of one worker application.

    ``done_topic`` None publishes no done tasks. ``identity`` tells this consumer's deliveries from those of all others:
    with it messages get an id, for a bus that can thereby drop a repeated publish and does not finish atomically
    anyway. ``at_most_once`` says that tasks were acknowledged when
    they were received: the bus delivers none again, so what is not brought to an end here is dead-lettered.
    ``longest_delay`` is how many seconds the bus can delay a message it has delivered. What is to wait longer goes to
    ``delay_topic``, from where the delay taskmaster sends it back in time; None leaves it to the bus, which cuts it.
    ``tries`` tells what is known of earlier attempts at a message, for the letter of one that came to no end.
    """

    topic: str
    group: str | None
    done_topic: str | None
    dead_topic: str
    retries: int
    backoff: Backoff
    max_attempts: int
    identity: str | None = None
    at_most_once: bool = False
    longest_delay: float = float("inf")
    delay_topic: str | None = None
    tries: Callable[[Delivery], Sequence[Mapping[str, object]]] | None = None

    def ended(self, assignment: Assignment) -> Verdict:
        """The verdict on an attempt that ran."""
        outcome = assignment.outcome
        if outcome is None:
            return self._unfinished(assignment)
        delivery, attempt = assignment.delivery, assignment.context.attempt
        if outcome.retry_in is not None:
            if attempt < self.max_attempts and not self.at_most_once:
                return self._again(assignment, outcome.retry_in, outcome.msg or None)
            return self._dead_and_done(assignment, outcome, "retries-exhausted")
        if outcome.rejected:
            return self._dead_and_done(assignment, outcome, "rejected")
        if outcome.result is _ERROR and self.retries and not self.at_most_once:
            if attempt <= self.retries:
                return self._again(assignment, self.backoff.delay(attempt), outcome.msg or None)
            return self._dead_and_done(assignment, outcome, "retries-exhausted")
        result = outcome.result._value_
        messages = () if self.done_topic is None else (self._done(assignment, outcome),)
        return Verdict(delivery, FINISH, result, messages, 0.0, None, assignment)

    def undecodable(self, delivery: Delivery, problem: DecodeError) -> Verdict:
        """The verdict on bytes that are no task."""
        return self.dead(delivery, problem.code, str(problem), None)

    def endless(self, delivery: Delivery, task: Task, attempt: int) -> Verdict:
        """The verdict on a task that was delivered too often to be tried again."""
        reason = (
            f"delivered {attempt} times and never brought to an end (max_attempts is {self.max_attempts}): it may be "
            "killing its worker"
        )
        tries = () if self.tries is None else self.tries(delivery)
        return self.dead(delivery, "too-many-attempts", reason, task, tries)

    def dead(
        self,
        delivery: Delivery,
        code: str,
        reason: str,
        task: Task | None,
        tries: Sequence[Mapping[str, object]] = (),
    ) -> Verdict:
        """The verdict on a message that no attempt, or no further one, is made at."""
        letter = dead_letter(
            delivery, topic=self.topic, group=self.group, reason=reason, code=code, task=task, tries=tries
        )
        message = Message(self.dead_topic, letter, None, 0.0, self._unique("dead", delivery))
        return Verdict(delivery, FINISH, "dead", (message,), 0.0, reason, None, task, code)

    def refused(self, delivery: Delivery, task: Task, reason: str) -> Verdict:
        """The verdict on a task answered with ``error`` without running it."""
        now = now_text()
        body = encode_done(task, "error", reason, now, now)
        messages = () if self.done_topic is None else (self._message(body, delivery, task),)
        return Verdict(delivery, FINISH, "error", messages, 0.0, reason, None, task)

    def released(self, delivery: Delivery, delay: float = 0.0) -> Verdict:
        """The verdict on what was not begun here."""
        return Verdict(delivery, Action.RELEASE, "released", (), delay)

    def later(self, delivery: Delivery, task: Task, delay: float) -> Verdict:
        """The verdict on a task that is not to be begun before ``delay`` seconds."""
        verdict = self.released(delivery, delay)
        self._delay(verdict, task, attempts_before(task))
        return verdict

    def cut_short(self, delivery: Delivery, task: Task) -> Verdict:
        """The verdict on what a shutdown interrupted."""
        if self.at_most_once:
            return self.dead(delivery, "interrupted", "interrupted by shutdown, and acknowledged on receipt", task)
        return self.released(delivery)

    def ignored(self, delivery: Delivery) -> Verdict:
        """The verdict on a task that is none of ours and wants no answer."""
        return Verdict(delivery, FINISH, "ignored")

    def _unfinished(self, assignment: Assignment) -> Verdict:
        delivery = assignment.delivery
        if not assignment.crashed:
            verdict = self.cut_short(delivery, assignment.task)
            verdict.reason, verdict.assignment = assignment.reason, assignment
            return verdict
        attempt = assignment.context.attempt
        if attempt < self.max_attempts and not self.at_most_once:
            return self._again(assignment, self.backoff.delay(attempt), assignment.reason)
        reason = f"{assignment.reason}; attempt {attempt} of at most {self.max_attempts}"
        return self.dead(delivery, "crashed", reason, assignment.task)

    def _again(self, assignment: Assignment, delay: float, reason: str | None) -> Verdict:
        verdict = Verdict(assignment.delivery, Action.NACK, "retried", (), delay, reason, assignment)
        self._delay(verdict, assignment.task, assignment.context.attempt)
        return verdict

    def _delay(self, verdict: Verdict, task: Task, attempts: int) -> None:
        """Give what is to wait for longer than the bus can delay it to the delay taskmaster."""
        if verdict.delay <= self.longest_delay:
            return
        if self.delay_topic is None:
            _warn(self.topic, self.longest_delay)
            return
        moment = datetime.now(UTC) + timedelta(seconds=min(verdict.delay, _LONGEST))
        body = encode(delayed(task, moment, self.topic, attempts))
        verdict.action = FINISH
        unique = self._unique(f"{task.id}:later", verdict.delivery)
        verdict.messages = (Message(self.delay_topic, body, None, 0.0, unique),)

    def _dead_and_done(self, assignment: Assignment, outcome: Outcome, code: str) -> Verdict:
        verdict = self.dead(assignment.delivery, code, outcome.msg, assignment.task)
        if self.done_topic is not None:
            told = replace(outcome, meta={**(outcome.meta or {}), DEAD: code})
            verdict.messages = (*verdict.messages, self._done(assignment, told))
        verdict.assignment = assignment
        return verdict

    def _done(self, assignment: Assignment, outcome: Outcome) -> Message:
        task = assignment.task
        body = encode_done(
            task, outcome.result._value_, outcome.msg, assignment.started, assignment.completed, outcome.meta
        )
        return self._message(body, assignment.delivery, task)

    def _message(self, body: bytes, delivery: Delivery, task: Task) -> Message:
        unique = None if self.identity is None else self._unique(task.id or "", delivery)
        return _new(Message, (self.done_topic, body, None, 0.0, unique))

    def _unique(self, what: str, delivery: Delivery) -> str | None:
        # The same at every attempt: a second one is made only if the first was not acknowledged, though what came of it
        # may have been published. Then the first result stands. Another for the task that is sent again.
        return f"{what}:{delivery.id}:{self.identity}" if self.identity is not None else None


@lru_cache(maxsize=64)
def _warn(topic: str, longest: float) -> None:
    """Told once for each topic, not for each task."""
    can = f"for more than {format_duration(longest)}" if longest else "at all"
    _log.warning(
        "this bus cannot delay what it has delivered %s: retries of %s come earlier than they should; run `taskbus "
        "taskmaster delay` and name its topic with --delay-topic",
        can,
        topic,
        extra={"event": "delay-cut", "topic": topic, "longest": longest},
    )
