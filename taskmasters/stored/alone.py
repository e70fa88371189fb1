"""An engine with its state and its outbox in one: for dry runs and simulations, which have no bus."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from task.task import Task
from taskmasters.store import Arrival, Fate, Outgoing, Schema, open_store, outbox
from taskmasters.store.outbox import OUTBOX
from taskmasters.stored.taskmaster import Engine

__all__ = ["EngineAlone"]


class EngineAlone:
    """``engine`` with the tables of ``schemas``, in memory. Moments are seconds since the epoch."""

    def __init__(self, engine: Engine, *schemas: Schema) -> None:
        self._engine = engine
        self._wake: float | None = None
        self._store = open_store(":memory:", OUTBOX, *schemas, here=True)

    def close(self) -> None:
        """Let go of the state."""
        self._store.close()

    @property
    def wake(self) -> float | None:
        """The moment at which the next message is due; None if none waits."""
        return self._wake

    def tick(self, now: float) -> list[Outgoing]:
        """Everything that is due, in the order in which it is to be sent."""

        def work(tx: Connection) -> tuple[list[Outgoing], float | None]:
            return outbox.take(tx, now), outbox.wake(tx)

        sent, self._wake = self._store.call(work)
        return sent

    def apply(self, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Do these; what follows from them is given by :meth:`tick`."""

        def work(tx: Connection) -> tuple[list[Fate], float | None]:
            return self._engine.apply(tx, arrivals, now), outbox.wake(tx)

        fates, self._wake = self._store.call(work)
        return fates

    def forget(self, before: float) -> None:
        """Forget what was sent before that moment."""
        while self._store.call(lambda tx: outbox.forget(tx, before)):
            pass

    def take(self, task: Task, now: float) -> list[Outgoing]:
        """A task came, which must have an id. What is due then.

        Raises:
            ValueError: if it would become a dead letter; the text says why.
        """
        (fate,) = self.apply([Arrival(task, task.id or "")], now)
        if fate.code:
            raise ValueError(fate.reason)
        return self.tick(now)
