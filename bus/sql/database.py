"""What the bus needs of a database: pieces of work in transactions. The one for SQLite is in :mod:`bus.sql.sqlite`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from bus.sql.statements import Bulk

__all__ = ["Database", "Transaction"]

Result = TypeVar("Result")


class Transaction(Protocol):
    """What a piece of work may do. Values are given by name; a list stands behind ``IN``."""

    def rows(self, text: str, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        ...

    def bulk(self, query: Bulk, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query that may yield many; in whatever order, the caller sorts."""
        ...

    def run(self, text: str, **values: Any) -> int:
        """Run a statement; how many rows it changed."""
        ...

    def insert(self, text: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run an INSERT of one row for each of ``rows``, whose values stand in the order of its parameters."""
        ...


class Database(Protocol):
    """A connection. Methods raise only errors of :mod:`bus.errors`."""

    def open(self) -> str:
        """Connect and make what is missing; returns the epoch of the store."""
        ...

    def write(self, work: Callable[[Transaction], Result], *, durable: bool) -> Result:
        """Run ``work`` as the only writer, and commit. What it raises rolls back and is raised.

        ``durable``: the commit survives what the database survives; otherwise it may be undone by power loss, but not
        when one after it survives.
        """
        ...

    def read(self, work: Callable[[Transaction], Result]) -> Result:
        """Run ``work``, which changes nothing and sees one state."""
        ...

    def changed(self) -> bool:
        """Whether another connection has written since the last call. Cheap."""
        ...

    def close(self) -> None:
        """Disconnect. Idempotent."""
        ...
