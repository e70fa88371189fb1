"""What becomes of a task that ended: it is tried again, given up, or none of ours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection

from bus import BadNameError, Delivery, check_topic
from bus import dead_topic as dead_topic_of
from bus.units import format_duration
from task.codec import encode
from task.dead import DEAD, dead_letter
from task.delaying import ATTEMPTS, RUN_AT, RUN_TOPIC
from task.task import Task, derive_id
from task.times import format_time
from taskmasters.retry import records
from taskmasters.retry.records import Record, try_of
from taskmasters.retry.rules import RetryRule, find_rule
from taskmasters.store import Arrival, Fate, Outgoing, outbox
from taskmasters.store.relay import Refused
from taskmasters.stored.burying import bury

__all__ = ["FATES", "RETRY", "RETRY_FAILED", "RetryEngine"]

#: Meta key: which retry of the task this is, from 1.
RETRY = "retry"
#: Meta key of the event that tells of a task that was given up: why it was.
RETRY_FAILED = "retry_failed"
#: What may become of a done task. ``ended``: one that was retried came to its end. ``repeated``: it came before.
#: ``kept``: its worker made a dead letter of it already.
FATES = ("retried", "exhausted", "ended", "repeated", "kept", "unmatched", "unfinished", "dead")
#: Meta key of a task that was sent back from the dead letters.
_REDRIVEN = "redriven"
#: Meta keys of a task that its worker had delayed: these belong to the attempt that has ended.
_WORKERS = (RUN_AT, RUN_TOPIC, ATTEMPTS)
#: Seconds between the times of forgetting, and the most records forgotten in one transaction.
_CLEANING, _FORGOTTEN = 60.0, 1000


class RetryEngine:
    """Decides by ``rules``; the first that is for a task counts.

    ``failed_topic`` is told of tasks that were given up, None tells nobody. ``keep`` is how many seconds a task that
    came to an end, or never came back, is remembered.
    """

    def __init__(self, rules: Sequence[RetryRule], *, failed_topic: str | None, keep: float) -> None:
        self._failed_topic = failed_topic
        self._keep = keep
        self._cleaned: float | None = None
        #: Those of earlier rules too: their letters may still wait to be sent.
        self._dead_topics: set[str] = set()
        self.use(rules)

    def use(self, rules: Sequence[RetryRule]) -> None:
        """Decide by these from now on. What was decided stays."""
        self._rules = rules
        self._dead_topics |= {rule.dead_topic for rule in rules if rule.dead_topic is not None}

    def apply(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Decide about these done tasks, in their order."""
        lives = [_life(arrival) for arrival in arrivals]
        batch = _Batch(records.load(tx, set(lives)))
        fates = [self._decide(arrival, life, batch, now) for arrival, life in zip(arrivals, lives, strict=True)]
        records.save(tx, list(batch.changed.values()))
        outbox.withdraw(tx, batch.withdrawn)
        outbox.put(tx, *batch.outgoing)
        self._clean(tx, now)
        return fates

    def refused(self, tx: Connection, refused: Sequence[Refused], now: float) -> None:
        """The bus will never take these."""
        bury(tx, refused, self._letters_of, now)

    def _letters_of(self, topic: str) -> str:
        return topic if topic in self._dead_topics else dead_topic_of(topic)

    def _clean(self, tx: Connection, now: float) -> None:
        if self._cleaned is not None and 0 <= now - self._cleaned < _CLEANING:
            return
        if records.forget(tx, now - self._keep, _FORGOTTEN) < _FORGOTTEN:
            self._cleaned = now

    def _decide(self, arrival: Arrival, life: str, batch: _Batch, now: float) -> Fate:
        task, record = arrival.task, batch.found.get(life)
        result = task.result
        if result is None:
            return Fate("unfinished")
        number = _number(task)
        if number is None:
            return Fate("dead", "bad-retry", f"meta {RETRY!r} is {task.meta[RETRY][:20]!r}, not the number of a retry")
        if record is not None and record.ended:
            return Fate("repeated")
        rule = None if DEAD in task.meta else find_rule(self._rules, task, result)
        if rule is None:
            return self._end(task, record, batch, now)
        if record is not None and number < record.number:
            return Fate("repeated")
        try:
            check_topic(rule.target(task))
        except BadNameError as error:
            return Fate("dead", "bad-topic", f"rule {rule.id} has no topic: {error}")
        record = record or batch.new(life, now, number)
        record.add(try_of(task, number + 1))
        return self._retry(rule, arrival, number, record, batch, now)

    def _end(self, task: Task, record: Record | None, batch: _Batch, now: float) -> Fate:
        """It is not retried. If it was, that has come to an end, and what would still be sent is taken back."""
        if record is None:
            return Fate("kept" if DEAD in task.meta else "unmatched")
        batch.withdraw(_retry_id(record.id, record.number))
        record.ended, record.changed = True, now
        batch.changed[record.id] = record
        return Fate("ended")

    def _retry(self, rule: RetryRule, arrival: Arrival, number: int, record: Record, batch: _Batch, now: float) -> Fate:
        kept = {key: value for key, value in arrival.task.meta.items() if key not in _WORKERS}
        plain = arrival.task.replace(
            id=arrival.id, meta=kept or None, result=None, msg=None, started=None, completed=None
        )
        following = number + 1
        due = now + rule.delays.before(following, arrival.id)
        batch.changed[record.id] = record
        if reason := _given_up(rule, record, following, due):
            record.ended, record.changed = True, now
            batch.outgoing += self._give_up(rule, arrival, plain, number, record, reason, now)
            return Fate("exhausted")
        record.number, record.changed = following, due
        body = encode(plain.replace(meta={**plain.meta, RETRY: str(following)}))
        batch.outgoing.append(Outgoing(_retry_id(record.id, following), rule.target(plain), body, due))
        return Fate("retried")

    def _give_up(
        self, rule: RetryRule, arrival: Arrival, plain: Task, number: int, record: Record, reason: str, now: float
    ) -> list[Outgoing]:
        """A dead letter with the history of attempts, and an event. Sent back, the task begins to count anew."""
        done = arrival.task
        bare = plain.replace(meta={key: value for key, value in plain.meta.items() if key != RETRY})
        letter = dead_letter(
            Delivery(encode(bare), record.id, number + 1),
            topic=rule.target(plain),
            group=None,
            reason=f"{reason}: {done.msg}",
            code="retries-exhausted",
            task=bare,
            tries=record.tries,
            dead=format_time(datetime.fromtimestamp(now, UTC)),
        )
        found = [Outgoing(derive_id("retry-dead", record.id, str(number)), rule.dead_target(plain), letter, now)]
        if self._failed_topic is not None:
            meta = {**done.meta, RETRY: str(number), RETRY_FAILED: reason}
            event = encode(done.replace(id=arrival.id, meta=meta))
            found.append(Outgoing(derive_id("retry-failed", record.id, str(number)), self._failed_topic, event, now))
        return found


class _Batch:
    """What the arrivals of one transaction change."""

    def __init__(self, found: dict[str, Record]) -> None:
        self.found = found
        self.changed: dict[str, Record] = {}
        self.withdrawn: list[str] = []
        self.outgoing: list[Outgoing] = []

    def new(self, id: str, first: float, number: int) -> Record:
        """A record for what was not known."""
        record = self.found[id] = Record(id, first, number)
        return record

    def withdraw(self, id: str) -> None:
        """Do not send this, whether it was put before or in this batch."""
        self.withdrawn.append(id)
        self.outgoing = [outgoing for outgoing in self.outgoing if outgoing.id != id]


def _life(arrival: Arrival) -> str:
    """The id of one life of a task: sent back, or made anew with the same id, it begins another."""
    task = arrival.task
    created = "" if task.created is None else task.created.isoformat()
    return derive_id("retry", arrival.id, task.type, created, task.meta.get(_REDRIVEN, ""))


def _retry_id(life: str, number: int) -> str:
    return derive_id("retry-number", life, str(number))


def _number(task: Task) -> int | None:
    """Which retry this was; 0 for the first attempt; None for what is no number."""
    text = task.meta.get(RETRY, "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _given_up(rule: RetryRule, record: Record, following: int, due: float) -> str:
    """Why there is no further retry; empty if there is one."""
    if following > rule.retries:
        return f"given up after {following} attempt{'s' if following > 1 else ''}"
    if rule.within is not None and due > record.first + rule.within:
        attempts = f"{following} attempt{'s' if following > 1 else ''}"
        return f"given up after {attempts}: the next would be later than {format_duration(rule.within)} after the first"
    return ""
