"""What becomes of requests for batches: taken, carried on piece by piece, told of when they end.

It knows no bus and no clock. What is to be sent goes into the outbox in the transaction that counts it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection

from task.codec import decode, encode, encode_done
from task.errors import TaskError
from task.task import Task, derive_id
from task.times import format_time
from taskmasters.batcher import tables
from taskmasters.batcher.request import Places, Request, read_request
from taskmasters.batcher.tables import Row
from taskmasters.store import Arrival, Fate, Outgoing, outbox
from taskmasters.store.relay import Refused
from taskmasters.stored.burying import bury

__all__ = ["FATES", "Batch", "BatcherEngine"]

#: What may become of a request. ``cancelled``: it asked to cancel another.
FATES = ("accepted", "repeated", "cancelled", "dead")
#: Tasks made in one transaction.
_PORTION = 500
#: Seconds before they are due that tasks of a slow batch are made.
_AHEAD = 5.0
#: Meta keys by which a request that is tried again is told from one that is delivered twice.
_ATTEMPTS = ("attempt", "retry")


class Batch:
    """One request that is under way: where it stands, and its next tasks."""

    def __init__(self, row: Row, request: Request) -> None:
        self.row = row
        self._request = request
        self._tasks: Iterator[Task] | None = None
        self._ready: list[Task] = []

    def count(self) -> tuple[int, str]:
        """How many tasks it has, each of which was made once to see that it can be, and the signature of its file.

        Raises:
            TaskError: a task cannot be made.
        """
        return sum(1 for _ in self._request.plan.tasks()), self._request.signature

    def due(self, number: int) -> float:
        """When its task with that number, from 0, is to be sent."""
        began = self.row.began or 0.0
        return began if self._request.rate is None else began + number / self._request.rate

    def next(self, now: float) -> list[Task]:
        """The tasks that are to be made now.

        Raises:
            TaskError: they cannot be made any more: the file of rows is another one.
        """
        if self._tasks is None or not self._ready:
            if self._request.signature != self.row.signature:
                raise TaskError("the file of its rows was changed meanwhile")
            if self._tasks is None:
                self._tasks = itertools.islice(self._request.plan.tasks(), self.row.made, None)
            wanted = (number for number in range(self.row.made, self.row.made + _PORTION))
            count = sum(1 for number in itertools.takewhile(lambda n: self.due(n) <= now + _AHEAD, wanted))
            self._ready = list(itertools.islice(self._tasks, count))
        return self._ready

    def outgoing(self, task: Task, number: int) -> Outgoing:
        """The message of its task with that number."""
        return Outgoing(task.id or "", self._request.plan.topic, encode(task), self.due(number))

    def advanced(self) -> None:
        """The tasks that :meth:`next` gave are stored."""
        self.row = self.row._replace(made=self.row.made + len(self._ready))
        self._ready = []


class BatcherEngine:
    """Takes requests, whose templates and rows are in ``places``. ``done_topic`` is told of their ends, if not None."""

    def __init__(self, places: Places, done_topic: str | None, letters_of: Callable[[str], str]) -> None:
        self._places = places
        self._done_topic = done_topic
        self._letters_of = letters_of

    def apply(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Take these requests. One that is wrong becomes a dead letter, and is told of as failed."""
        return [self._take(tx, arrival, now) for arrival in arrivals]

    def refused(self, tx: Connection, refused: Sequence[Refused], now: float) -> None:
        """The bus will never take these."""
        bury(tx, refused, self._letters_of, now)

    def open(self, row: Row) -> Batch:
        """The batch of a request that was taken. Raises TaskError if it is one no more: rules were changed."""
        task = decode(row.body, len(row.body))
        request = read_request(task, task.id or row.id, row.arrived, self._places)
        if isinstance(request, str):
            raise TaskError("it asks to cancel another")
        return Batch(row, request)

    def begin(self, tx: Connection, batch: Batch, total: int, signature: str, now: float) -> bool:
        """All its tasks are right. False if that is known, or it has ended."""
        return tables.start(tx, batch.row.key, total, signature, now)

    def store(self, tx: Connection, batch: Batch, tasks: Sequence[Task], now: float) -> bool:
        """These are its next tasks. False if another instance has made them, or it has ended: then nothing is done."""
        row = batch.row
        made = row.made + len(tasks)
        if not tables.advance(tx, row.key, row.made, made):
            return False
        outbox.put(tx, *(batch.outgoing(task, row.made + number) for number, task in enumerate(tasks)))
        if row.total is not None and made >= row.total:
            self._end(tx, row, made, "", max(now, batch.due(row.total - 1) if row.total else now), now)
        return True

    def give_up(self, tx: Connection, row: Row, reason: str, now: float) -> None:
        """It cannot be carried on."""
        self._end(tx, row, row.made, reason, now, now)

    def _take(self, tx: Connection, arrival: Arrival, now: float) -> Fate:
        task, id = arrival
        key = tables.key_of(id, " ".join(task.meta.get(name, "") for name in _ATTEMPTS))
        if tables.is_known(tx, key):
            return Fate("repeated")
        task = task if task.id else task.replace(id=id)
        try:
            wanted = read_request(task, id, now, self._places)
        except (TaskError, ValueError) as error:
            self._tell(tx, key, task, "error", str(error), now, now)
            return Fate("dead", "bad-request", str(error))
        if isinstance(wanted, str):
            rows = tables.find(tx, wanted)
            for row in rows:
                self._end(tx, row, row.made, "cancelled", now, now)
            said = f"cancelled {wanted}" if rows else f"there is no batch {wanted!r} under way"
            self._tell(tx, key, task, "complete" if rows else "error", said, now, now)
            return Fate("cancelled")
        tables.add(tx, key, id, encode(task), now)
        return Fate("accepted")

    def _end(self, tx: Connection, row: Row, made: int, reason: str, due: float, now: float) -> None:
        if not tables.end(tx, row.key, now):
            return
        task = decode(row.body, len(row.body))
        count = f"{made} task{'' if made == 1 else 's'}"
        if reason:
            of = "" if row.total is None else f" of {row.total}"
            msg, result = f"{reason}; {made}{of} tasks were made", "error"
        else:
            msg, result = f"made {count}", "complete"
        self._tell(tx, row.key, task, result, msg, row.began or row.arrived, due, str(made))

    def _tell(
        self, tx: Connection, key: str, task: Task, result: str, msg: str, began: float, due: float, made: str = "0"
    ) -> None:
        if self._done_topic is None:
            return
        times = [format_time(datetime.fromtimestamp(moment, UTC)) for moment in (began, due)]
        body = encode_done(task, result, msg, times[0], times[1], {"tasks": made})
        outbox.put(tx, Outgoing(derive_id("batcher-done", key), self._done_topic, body, due))
