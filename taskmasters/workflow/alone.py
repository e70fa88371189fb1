"""The engine with its state and its outbox in one: for dry runs and simulations, which have no bus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from task.task import Task
from taskmasters.store import Fate, Outgoing, open_store, outbox
from taskmasters.store.inbox import Arrival
from taskmasters.store.outbox import OUTBOX
from taskmasters.workflow.book import Book
from taskmasters.workflow.definition import Workflow
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.load import read_stored
from taskmasters.workflow.tables import TABLES

__all__ = ["WorkflowAlone"]

#: Messages taken from the outbox at a time.
_BATCH = 500


class WorkflowAlone:
    """Workflows that begin at the moment ``now``. Everything it is told gives what is to be sent then.

    ``done_topic`` is where the ends of runs are told; None is nowhere.
    """

    def __init__(self, workflows: Sequence[Workflow], now: float, done_topic: str | None) -> None:
        self._store = open_store(":memory:", OUTBOX, TABLES)
        self._engine = WorkflowEngine(Book(workflows, read_stored), done_topic)
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
        found: list[Outgoing] = []
        while batch := self._store.call(lambda tx: outbox.due(tx, now, _BATCH)):
            self._store.call(lambda tx, some=batch: outbox.sent(tx, some, now))  # type: ignore[misc]
            found += [stored.message for stored in batch]
        return found
