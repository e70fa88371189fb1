"""What is asked of the database's thread, and how the answer gets back to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, TypeAlias, TypeVar

from bus.contract import Delivery
from bus.errors import BusError
from bus.sql.database import Transaction
from bus.sql.membership import Member
from bus.sql.topic import Outgoing

__all__ = ["Claim", "Job", "Look", "Step", "Work", "settle", "settle_all"]

Result = TypeVar("Result")


class Step:
    """One transaction as a job sees it. ``now`` is in microseconds."""

    __slots__ = ("now", "outgoing", "tx")

    def __init__(self, tx: Transaction, now: int) -> None:
        self.tx = tx
        self.now = now
        #: What the jobs of this transaction publish; it is stored together at its end.
        self.outgoing: list[Outgoing] = []


Work: TypeAlias = Callable[[Step], Result]


class Job(Generic[Result]):
    """One call. ``work`` may raise a BusError for its caller as long as it has changed nothing.

    ``topics`` are those whose waiting consumers may find something afterwards.
    """

    def __init__(
        self, work: Work[Result], future: asyncio.Future[Result], topics: Collection[str], *, durable: bool
    ) -> None:
        self.work = work
        self.future = future
        self.topics = topics
        self.durable = durable
        self.result: Result | None = None
        self.error: BaseException | None = None

    def run(self, step: Step) -> None:
        """Do it. It may be done again, if the transaction was rolled back."""
        self.result, self.error = None, None
        try:
            self.result = self.work(step)
        except BusError as error:
            self.error = error

    def settle(self) -> None:
        """Give the caller its answer."""
        settle(self.future, self.result, self.error)


class Look(Job[Result]):
    """A call that only reads."""


class Claim:
    """A consumer's wish for up to ``limit`` messages, which ``future`` brings; none only when it was withdrawn."""

    def __init__(self, member: Member, limit: int, future: asyncio.Future[list[Delivery]]) -> None:
        self.member = member
        self.limit = limit
        self.future = future
        #: Answer it though nothing was found, and, ``unwanted``, without looking.
        self.withdrawn = False
        self.unwanted = False
        #: When to look again (0 = it never was), but not before this (monotonic), because there was trouble.
        self.due = 0
        self.not_before = 0.0
        self.found: list[Delivery] = []
        self.error: BaseException | None = None

    def settle(self) -> None:
        """Give the consumer its answer."""
        settle(self.future, self.found, self.error)


def settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Answer, on the event loop, unless nobody waits any more."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def settle_all(done: Iterable[Job[Any] | Claim]) -> None:
    """Answer all of these."""
    for item in done:
        item.settle()
