"""What becomes of a task that is to be sent later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection

from bus import BadNameError, check_topic
from bus.units import parse_duration
from task.codec import encode
from task.delaying import RUN_AT, RUN_TOPIC
from task.errors import TaskError
from task.task import Task, derive_id
from task.times import format_time, parse_time
from taskmasters.store import Arrival, Fate, Outgoing, outbox
from taskmasters.store.relay import Refused
from taskmasters.stored.burying import bury

__all__ = ["FATES", "DelayEngine"]

#: What may become of a task: it waits, it was due when it came, it is a dead letter.
FATES = ("delayed", "due", "dead")
#: Seconds of the longest duration: ten years. A bare number beyond it was meant as a moment.
_LONGEST = 3660 * 86400.0


class _WrongError(TaskError):
    """A task that does not say when and where."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DelayEngine:
    """Takes tasks from ``topic`` and puts them into the outbox; what the bus will not take goes to ``dead_topic``."""

    def __init__(self, topic: str, dead_topic: str) -> None:
        self._topic = topic
        self._dead_topic = dead_topic

    def apply(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Store these until they are due."""
        fates: list[Fate] = []
        found: list[Outgoing] = []
        for arrival in arrivals:
            try:
                outgoing = self.delayed(arrival, now)
            except _WrongError as error:
                fates.append(Fate("dead", error.code, str(error)))
            else:
                fates.append(Fate("due" if outgoing.due <= now else "delayed"))
                found.append(outgoing)
        outbox.put(tx, *found)
        return fates

    def refused(self, tx: Connection, refused: Sequence[Refused], now: float) -> None:
        """The bus will never take these."""
        bury(tx, refused, lambda topic: self._dead_topic, now)

    def delayed(self, arrival: Arrival, now: float) -> Outgoing:
        """The task as it will be sent, and when.

        It is the same task but for its meta: ``run_at`` is the moment, in UTC, and ``run_topic`` is gone.
        """
        task = arrival.task
        moment = _moment(task, now)
        topic = self._target(task)
        text = format_time(moment)
        meta = {key: value for key, value in task.meta.items() if key != RUN_TOPIC}
        body = encode(task.replace(id=arrival.id, meta={**meta, RUN_AT: text}))
        # The same task may be delayed anew, when it is retried; the same delay of it is stored once.
        return Outgoing(derive_id("delay", arrival.id, topic, text), topic, body, moment.timestamp())

    def _target(self, task: Task) -> str:
        given = task.meta.get(RUN_TOPIC)
        try:
            topic = check_topic(given or task.type)
        except BadNameError as error:
            hint = "" if given else f"; give the topic to send to as meta {RUN_TOPIC!r}"
            raise _WrongError("bad-topic", f"{error}{hint}") from None
        if topic in (self._topic, self._dead_topic):
            raise _WrongError(
                "bad-topic", f"it is to be sent to {topic}, where no worker finds it: give another meta {RUN_TOPIC!r}"
            )
        return topic


def _moment(task: Task, now: float) -> datetime:
    text = task.meta.get(RUN_AT)
    if text is None:
        raise _WrongError("no-run-at", f"it does not say when: give a time or a duration as meta {RUN_AT!r}")
    try:
        return parse_time(text)
    except ValueError:
        pass
    try:
        seconds = parse_duration(text)
        if not 0 <= seconds <= _LONGEST:
            raise ValueError
    except ValueError:
        raise _WrongError(
            "bad-run-at",
            f"meta {RUN_AT!r} is {text[:60]!r}: write a time like 2026-01-31T08:00:00Z, or a duration like 90s or 2d, "
            "of at most ten years",
        ) from None
    begin = task.created.timestamp() if task.created else now
    return datetime.fromtimestamp(begin + seconds, UTC)
