"""The engine with its state and its outbox in one: for dry runs and simulations, which have no bus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Connection, select

from task.outcome import Result
from task.task import Task
from taskmasters.store import Fate, Outgoing, open_store, outbox
from taskmasters.store.inbox import Arrival
from taskmasters.store.outbox import OUTBOX
from taskmasters.workflow import tables
from taskmasters.workflow.book import Book
from taskmasters.workflow.definition import Workflow
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.load import read_stored
from taskmasters.workflow.tables import TABLES

__all__ = ["WorkflowAlone"]

#: Values behind one IN.
_MANY = 500


class WorkflowAlone:
    """Workflows that begin at the moment ``now``. Everything it is told gives what is to be sent then.

    ``done_topic`` is where the ends of runs are told; None is nowhere.
    """

    def __init__(self, workflows: Sequence[Workflow], now: float, done_topic: str | None) -> None:
        self._store = open_store(":memory:", OUTBOX, TABLES)
        self._book = Book(workflows, read_stored)
        self._engine = WorkflowEngine(self._book, done_topic)
        #: Ids of the tasks of ours that were sent.
        self._sent: set[str] = set()
        self._store.call(lambda tx: self._engine.open(tx, now))

    def close(self) -> None:
        """Let go of the state."""
        self._store.close()

    @property
    def wake(self) -> float | None:
        """The next moment it wants to act by itself; None if there is none."""
        late, due = self._store.call(lambda tx: (self._engine.deadline(tx), outbox.wake(tx)))
        moments = [moment for moment in (self._engine.wake, late, due) if moment is not None]
        return min(moments, default=None)

    def tick(self, now: float) -> list[Outgoing]:
        """Time has passed."""
        firings = self._engine.due(now)
        more = self._store.call(lambda tx: self._engine.tick(tx, firings, now))
        while more:
            more = self._store.call(lambda tx: self._engine.tick(tx, (), now))
        return self._due(now)

    def done(self, task: Task, now: float) -> list[Outgoing]:
        """A task is done."""
        return self._told(task, now, self._engine.done)

    def request(self, task: Task, now: float) -> list[Outgoing]:
        """A run is asked for.

        Raises:
            ValueError: if there is no such workflow.
        """
        return self._told(task, now, self._engine.requests)

    def concerned(self, task: Task, result: Result) -> bool:
        """Whether a done task may change anything: it is one of ours, or begins a run."""
        return task.id in self._sent or bool(self._book.started_by(task, result))

    def apply_done(self, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """These are done; what follows from them is given by :meth:`tick`."""
        return self._store.call(lambda tx: self._engine.done(tx, arrivals, now))

    def apply_requests(self, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """These ask for runs; what follows from them is given by :meth:`tick`."""
        return self._store.call(lambda tx: self._engine.requests(tx, arrivals, now))

    def jobs(self, ids: Sequence[str]) -> dict[str, str]:
        """The names of the jobs whose tasks have these ids, by id."""
        table = tables.jobs.c
        query = [select(table.id, table.node).where(table.id.in_(some)) for some in _slices(ids)]
        return self._store.call(lambda tx: {row.id: row.node for some in query for row in tx.execute(some)})

    def forget(self, ended: float, sent: float) -> None:
        """Forget runs that ended before a moment, and the ids of what was sent before another."""
        while self._store.call(lambda tx: self._engine.forget(tx, ended)):
            pass
        while self._store.call(lambda tx: outbox.forget(tx, sent)):
            pass

    def failures(self) -> list[tuple[str, str]]:
        """The runs that failed, each with the reason."""
        return self._store.call(self._engine.failures)

    def _told(
        self, task: Task, now: float, apply: Callable[[Connection, Sequence[Arrival], float], list[Fate]]
    ) -> list[Outgoing]:
        arrivals = [Arrival(task, task.id or "")]
        for fate in self._store.call(lambda tx: apply(tx, arrivals, now)):
            if fate.code:
                raise ValueError(fate.reason)
        return self._due(now)

    def _due(self, now: float) -> list[Outgoing]:
        found = self._store.call(lambda tx: outbox.take(tx, now))
        self._sent.update(message.id.partition(".")[0] for message in found)
        return found


def _slices(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + _MANY] for start in range(0, len(items), _MANY))
