"""The rules of on-done with what they remember in one: for simulations, which have no bus."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from sqlalchemy import Connection

from task.outcome import Result
from task.task import Task
from taskmasters.on_done.children import Child, Family
from taskmasters.on_done.joins import Arrival, Known
from taskmasters.on_done.memory import MEMORY, Memory
from taskmasters.on_done.rules import OnDoneRule
from taskmasters.store import Store, open_store

__all__ = ["Became", "OnDoneAlone"]

_NOTHING = Known(False, ())


class Became(NamedTuple):
    """What becomes of a done task. With ``problems`` it would be a dead letter; its children are sent even so."""

    children: Sequence[Child]
    problems: Sequence[str]


class OnDoneAlone:
    """All rules of a file. Moments are seconds since the epoch."""

    def __init__(self, rules: Sequence[OnDoneRule]) -> None:
        self._family = Family(rules)
        self._remembering = _Remembering(self._family) if self._family.gathers else None

    def close(self) -> None:
        """Let go of what is remembered."""
        if self._remembering is not None:
            self._remembering.store.close()

    def done(self, tasks: Sequence[tuple[Task, Result]], now: float) -> list[Became]:
        """These are done, and have ids. What becomes of each."""
        family = self._family
        parts = [family.parts(task, task.id or "", result) for task, result in tasks] if family.gathers else None
        if parts is None or self._remembering is None:
            known: Sequence[Known] = [_NOTHING] * len(tasks)
        else:
            arrivals = [Arrival(task, task.id or "", some.found) for (task, _), some in zip(tasks, parts, strict=True)]
            known = self._remembering.known(arrivals, now)
        found = []
        for number, (task, result) in enumerate(tasks):
            made = family.made(task, task.id or "", result, known[number].joins, now)
            wrong = parts[number].problems if parts else []
            found.append(Became(made.found, [*wrong, *made.problems]))
        return found

    def given_up(self, now: float) -> list[tuple[str, str]]:
        """Joins that were given up until now, since this was last asked: their rules and keys."""
        remembering = self._remembering
        if remembering is None:
            return []
        remembering.look(now)
        found, remembering.given_up = remembering.given_up, []
        return found


class _Remembering:
    """The memory of the taskmaster, in this process only."""

    def __init__(self, family: Family) -> None:
        self.store: Store = open_store(":memory:", MEMORY, here=True)
        self.given_up: list[tuple[str, str]] = []
        self._memory = Memory(self.store, "alone", 0.0)
        self._rules = family.by_id
        #: What waits, and until when anything may, the earliest first: the database is asked only when there is need.
        self._waiting: set[tuple[str, str]] = set()
        self._patience: list[tuple[float, str, str]] = []

    def known(self, arrivals: Sequence[Arrival], now: float) -> list[Known]:
        """What these make complete, which is dealt with from now on."""
        numbers = [number for number, arrival in enumerate(arrivals) if arrival.parts]
        known = [_NOTHING] * len(arrivals)
        if not numbers:
            return known
        if self._patience and self._patience[0][0] < now:
            self.look(now)
        told = [arrivals[number] for number in numbers]
        for number, one in zip(numbers, self.store.call(lambda tx: self._arrive(tx, told, now)), strict=True):
            known[number] = one
        self._wait(told, now)
        self._waiting.difference_update((join.rule.id, join.key) for one in known for join in one.joins)
        return known

    def _arrive(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Known]:
        known = self._memory.arrive_in(tx, arrivals, now)
        joins = [join for one in known for join in one.joins]
        if joins:
            self._memory.dealt_with_in(tx, (), joins, now)
        return known

    def _wait(self, arrivals: Sequence[Arrival], now: float) -> None:
        """Note until when these may wait."""
        for rule, key, _ in (part for arrival in arrivals for part in arrival.parts):
            if rule.gather is not None and (rule.id, key) not in self._waiting:
                self._waiting.add((rule.id, key))
                heappush(self._patience, (now + rule.gather.within, rule.id, key))

    def look(self, now: float) -> None:
        """Give up what has waited too long."""
        late = False
        while self._patience and self._patience[0][0] < now:
            _, rule, key = heappop(self._patience)
            late |= (rule, key) in self._waiting
            self._waiting.discard((rule, key))
        if not late:
            return
        self.given_up += self.store.call(lambda tx: self._memory.forget_in(tx, self._rules, now))
