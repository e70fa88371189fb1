"""One of several replicas at a time, by a row in the database they share.

The leader beats: it counts up a number in the row. A replica that has seen the number stand still for a whole lease, by
its own clock, takes over with the next term. A leader that could not beat for two thirds of a lease, by its own clock,
knows that it is none any more. So no two clocks are ever compared.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Connection, String, select, update

from task.errors import StateError
from task.task import new_id
from taskmasters.store import Schema, Store
from taskmasters.store.schema import ID_LENGTH, insert_new, table

__all__ = ["LEADER", "Leader"]

_log = logging.getLogger("taskbus.leader")
_leader = table(
    "taskbus_leader",
    Column("name", String(ID_LENGTH), primary_key=True),
    #: Empty when it has resigned.
    Column("holder", String(ID_LENGTH), nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
)
LEADER = Schema("leader", 1, [_leader])


class _Seen(NamedTuple):
    holder: str
    term: int
    beat: int


class Leader:
    """The election called ``name``, seen by one replica. ``lease`` and ``monotonic`` are seconds.

    What the leader does when it has just stopped being one cannot be undone: it must be harmless to repeat.
    """

    def __init__(
        self, store: Store, name: str, lease: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._name = name
        self._lease = lease
        self._monotonic = monotonic
        self._me = new_id()
        self._term = 0
        self._beaten = 0.0
        self._seen: _Seen | None = None
        self._seen_at = 0.0
        self._won = asyncio.Event()
        #: What keeps the database from being asked; empty if nothing does.
        self.trouble = ""

    @property
    def leads(self) -> bool:
        """Whether this replica is the one, right now."""
        return self._term > 0 and self._monotonic() - self._beaten < self._lease * 2 / 3

    async def elected(self) -> None:
        """Return once this replica leads."""
        while not self.leads:
            self._won.clear()
            await self._won.wait()

    async def run(self) -> None:
        """Beat, or look whether somebody does, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.beat)
            except StateError as error:
                if self.trouble != str(error):
                    self.trouble = str(error)
                    _log.error("cannot ask who leads: %s", error, extra={"event": "leader-unknown"})
            else:
                self.trouble = ""
            if self.leads:
                self._won.set()
            await asyncio.sleep(self._lease / 4)

    def beat(self) -> None:
        """Beat once, or look once. Raises StateError."""
        began = self._monotonic()
        led = self._term
        self._term = self._store.call(lambda tx: self._ask(tx, began))
        self._beaten = began
        if self._term and self._term != led:
            _log.info("this replica leads", extra={"event": "leader", "election": self._name, "term": self._term})
        elif led and not self._term:
            _log.warning("another replica leads now", extra={"event": "follower", "election": self._name})

    def resign(self) -> None:
        """Let another take over at once. Raises StateError."""
        term, self._term = self._term, 0
        if term:
            mine = (_leader.c.name == self._name) & (_leader.c.holder == self._me) & (_leader.c.term == term)
            self._store.call(lambda tx: tx.execute(update(_leader).where(mine).values(holder="")))

    def _ask(self, tx: Connection, now: float) -> int:
        """Our term, or 0 if another leads."""
        row = tx.execute(
            select(_leader.c.holder, _leader.c.term, _leader.c.beat).where(_leader.c.name == self._name)
        ).one_or_none()
        if row is None:
            insert_new(tx, _leader, [{"name": self._name, "holder": self._me, "term": 1, "beat": 1}])
            return 1
        seen = _Seen(*row)
        term = seen.term
        if not (seen.holder == self._me and term == self._term):
            if seen != self._seen:
                self._seen, self._seen_at = seen, now
            if seen.holder and now - self._seen_at < self._lease:
                return 0
            term += 1
        tx.execute(
            update(_leader).where(_leader.c.name == self._name).values(holder=self._me, term=term, beat=seen.beat + 1)
        )
        return term
