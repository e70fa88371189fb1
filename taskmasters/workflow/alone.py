"""The engine with its state and its outbox in one: for dry runs and simulations, which have no bus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Connection, select

from task.outcome import Result
from task.task import Task
from taskmasters.cron.scheduler import Firing
from taskmasters.store import Arrival, Fate, Outgoing, open_store, outbox
from taskmasters.store.outbox import OUTBOX
from taskmasters.workflow import tables
from taskmasters.workflow.book import Book
from taskmasters.workflow.definition import Workflow
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.load import read_stored
from taskmasters.workflow.tables import TABLES

__all__ = ["WorkflowAlone"]

#: Messages an application receives at a time, and values behind one IN.
_BATCH = 500
Item = TypeVar("Item")
_Apply = Callable[[Connection, Sequence[Arrival], float], list[Fate]]


class WorkflowAlone:
    """Workflows that begin at the moment ``now``. Everything it is told gives what is to be sent then.

    ``done_topic`` is where the ends of runs are told; None is nowhere.
    """

    def __init__(self, workflows: Sequence[Workflow], now: float, done_topic: str | None) -> None:
        self._store = open_store(":memory:", OUTBOX, TABLES, here=True)
        self._book = Book(workflows, read_stored)
        self._engine = WorkflowEngine(self._book, done_topic)
        self._store.call(lambda tx: self._engine.open(tx, now))
        self._deadlines = any(node.deadline for one in workflows for node in (*one.nodes.values(), *one.undo.values()))
        #: The next moment at which a task is late or to be sent.
        self._next: float | None = None
        #: Ids of the tasks of ours that were sent.
        self._sent: set[str] = set()

    def close(self) -> None:
        """Let go of the state."""
        self._store.close()

    @property
    def wake(self) -> float | None:
        """The next moment it wants to act by itself; None if there is none."""
        return min((moment for moment in (self._engine.wake, self._next) if moment is not None), default=None)

    def tick(self, now: float) -> list[Outgoing]:
        """Time has passed."""
        return self._turn(None, (), now)[1]

    def done(self, task: Task, now: float) -> list[Outgoing]:
        """A task is done."""
        return _sent(self.apply_done([Arrival(task, task.id or "")], now))

    def request(self, task: Task, now: float) -> list[Outgoing]:
        """A run is asked for.

        Raises:
            ValueError: if there is no such workflow.
        """
        return _sent(self.apply_requests([Arrival(task, task.id or "")], now))

    def concerned(self, task: Task, result: Result) -> bool:
        """Whether a done task may change anything: it is one of ours, or begins a run."""
        return task.id in self._sent or bool(self._book.started_by(task, result))

    def apply_done(self, arrivals: Sequence[Arrival], now: float) -> tuple[list[Fate], list[Outgoing]]:
        """These are done: what becomes of each, and what is to be sent."""
        return self._turn(self._engine.done, arrivals, now)

    def apply_requests(self, arrivals: Sequence[Arrival], now: float) -> tuple[list[Fate], list[Outgoing]]:
        """These ask for runs: what becomes of each, and what is to be sent."""
        return self._turn(self._engine.requests, arrivals, now)

    def jobs(self, ids: Sequence[str]) -> dict[str, str]:
        """The names of the jobs whose tasks have these ids, by id."""
        table = tables.jobs.c
        queries = [select(table.id, table.node).where(table.id.in_(some)) for some in _slices(ids)]
        return self._store.call(lambda tx: {row.id: row.node for query in queries for row in tx.execute(query)})

    def failures(self) -> list[tuple[str, str]]:
        """The runs that failed, each with the reason."""
        return self._store.call(self._engine.failures)

    def forget(self, ended: float, sent: float) -> None:
        """Forget runs that ended before a moment, and the ids of what was sent before another."""
        while self._store.call(lambda tx: self._engine.forget(tx, ended)):
            pass
        while self._store.call(lambda tx: outbox.forget(tx, sent)):
            pass

    def _turn(self, apply: _Apply | None, arrivals: Sequence[Arrival], now: float) -> tuple[list[Fate], list[Outgoing]]:
        """Everything that happens now, in one transaction."""
        firings = self._engine.due(now)
        late = bool(firings) or (self._deadlines and self._next is not None and self._next <= now)

        def work(tx: Connection) -> tuple[list[Fate], list[Outgoing], float | None]:
            fates: list[Fate] = []
            if apply is not None:
                for some in _slices(arrivals):
                    fates += apply(tx, some, now)
            if late:
                self._tick(tx, firings, now)
            sent = outbox.take(tx, now)
            moments = [outbox.wake(tx), self._engine.deadline(tx) if self._deadlines else None]
            return fates, sent, min((moment for moment in moments if moment is not None), default=None)

        fates, sent, self._next = self._store.call(work)
        self._sent.update(job for job, _, attempt in (one.id.partition(".") for one in sent) if attempt != "done")
        return fates, sent

    def _tick(self, tx: Connection, firings: Sequence[Firing], now: float) -> None:
        more = self._engine.tick(tx, firings, now)
        while more:
            more = self._engine.tick(tx, (), now)


def _sent(turn: tuple[list[Fate], list[Outgoing]]) -> list[Outgoing]:
    for fate in turn[0]:
        if fate.code:
            raise ValueError(fate.reason)
    return turn[1]


def _slices(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))
