"""Which instants of which rules have come due. Knows no bus, no files and no clock but the moments it is told.

Each rule has a cursor, its next instant, which only moves forward; the cursors wait in a heap. So the scheduler's
memory is one entry for each rule, however far the bus is behind, and no instant comes twice. Those that come due soon
can be looked at before: then they wait in a heap of their own, and what follows them is known when they do come due.

An instant is *missed* when nobody was there to see it come due: at its turn it is more than :data:`GRACE` late, and
later than the scheduler was last known to be at work. Then the rule's policy decides on everything of that rule that
has come due by now. What is late because the bus was away is not missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import floor
from typing import NamedTuple

from bus.units import format_duration
from taskmasters.cron.rules import CronRule, Missed

__all__ = ["GRACE", "Firing", "Scheduler"]

_log = logging.getLogger("taskbus.cron")
#: Seconds an instant may be late without being missed.
GRACE = 60.0
#: Runs of fired instants kept of a rule: one more for each time it is late, or the clock is set.
_RUNS = 20


class Firing(NamedTuple):
    """A nominal instant of a rule that has come due."""

    rule: CronRule
    instant: int


class _Cursor:
    """Where one rule is. ``at`` is when its next instant comes due; whatever comes before that is dealt with.

    A clock that is ahead for a while has instants fired before their time, and others passed over that are yet to come.
    So what was fired is kept as runs, ``[first, last]`` in the order of firing, of instants with none left out between.
    """

    __slots__ = ("at", "before", "entry", "following", "instant", "jumped", "rule", "runs")

    def __init__(self, rule: CronRule, fired: int) -> None:
        self.rule = rule
        #: The latest instant dealt with in earlier runs of the program.
        self.before = fired
        self.runs: list[list[int]] = []
        #: Whether what is fired next does not follow what was fired last.
        self.jumped = True
        self.instant: int | None = None
        #: What follows ``instant``, in a tuple once it was found out.
        self.following: tuple[int | None] | None = None
        self.at = 0.0
        self.entry = 0

    @property
    def fired(self) -> int:
        """The latest instant that was dealt with."""
        return max([self.before, *(last for _, last in self.runs)])

    def fire(self, instant: int) -> None:
        """This one has come due."""
        if self.jumped:
            self.runs = [*self.runs[1 - _RUNS :], [instant, instant]]
            self.jumped = False
        else:
            self.runs[-1][1] = instant

    def take_back(self, instant: int) -> None:
        """This one, and what was fired after it, was not."""
        if self.runs:
            self.runs[-1][1] = instant - 1
            if self.runs[-1][0] >= instant:
                self.runs.pop()
                self.jumped = True

    def unfired(self, after: int) -> int | None:
        """The first instant after that moment which was not fired."""
        instant = self.rule.schedule.next(after)
        while instant is not None:
            run = next((last for first, last in self.runs if first <= instant <= last), None)
            if run is None:
                break
            instant = self.rule.schedule.next(run)
        return instant


#: When, its number, and whose instant it is. The cursor has another number if it was pointed elsewhere since.
_Entry = tuple[float, int, _Cursor]


class Scheduler:
    """The cursors of all enabled rules.

    ``fired`` is, by rule id, the latest instant dealt with in earlier runs; a rule it does not know begins at ``now``.
    """

    def __init__(self, rules: Iterable[CronRule], fired: Mapping[str, int], now: float) -> None:
        self._cursors: dict[str, _Cursor] = {}
        self._heap: list[_Entry] = []
        #: Those that :meth:`ahead` has told of.
        self._soon: list[_Entry] = []
        self._entries = 0
        self._awake = float("-inf")
        #: How often a rule's policy was asked about missed instants.
        self.missed = 0
        for rule in rules:
            if rule.enabled:
                self._begin(rule, fired.get(rule.id, floor(now)))

    @property
    def wake(self) -> float | None:
        """When the next instant comes due; None if none ever will."""
        first = self._first()
        return first[0][0] if first else None

    @property
    def unseen(self) -> float | None:
        """When the next instant comes due that :meth:`ahead` has not told of; None if none ever will."""
        _clean(self._heap)
        return self._heap[0][0] if self._heap else None

    def ahead(self, until: float, limit: int) -> list[Firing]:
        """The first instants that will come due by ``until`` and were not told of here yet."""
        firings: list[Firing] = []
        while len(firings) < limit and (unseen := self.unseen) is not None and unseen <= until:
            entry = heappop(self._heap)
            heappush(self._soon, entry)
            cursor = entry[2]
            if cursor.instant is not None:
                cursor.following = (cursor.unfired(cursor.instant),)
                firings.append(Firing(cursor.rule, cursor.instant))
        return firings

    def due(self, now: float, limit: int = 1000) -> list[Firing]:
        """The instants that have come due, earliest first, each once. More may be due if ``limit`` are returned."""
        self._look_at_clock(now)
        self._awake = now
        firings: list[Firing] = []
        while len(firings) < limit and (first := self._first()) and first[0][0] <= now:
            cursor = heappop(first)[2]
            if cursor.instant is not None:
                firings.append(Firing(cursor.rule, cursor.instant))
                following = cursor.following
                cursor.fire(cursor.instant)
                self._point(cursor, cursor.unfired(cursor.instant) if following is None else following[0])
        return firings

    def use(self, rules: Sequence[CronRule], now: float) -> list[CronRule]:
        """Go on with these, all of them enabled; returns those that begin at ``now``.

        A rule with the id and the schedule of an earlier one goes on where that one is.
        """
        before, self._cursors = self._cursors, {}
        begun: list[CronRule] = []
        for rule in rules:
            cursor = before.pop(rule.id, None)
            if cursor is None or cursor.rule.schedule.text != rule.schedule.text:
                if cursor is not None:
                    cursor.entry = 0
                self._begin(rule, floor(now))
                begun.append(rule)
                continue
            self._cursors[rule.id] = cursor
            earlier, cursor.rule = cursor.rule, rule
            if earlier.jitter != rule.jitter:
                self._point(cursor, cursor.instant)
            elif earlier is not rule and cursor.following is not None:
                # What was told of ahead was the instant of another rule.
                self._point(cursor, cursor.instant, cursor.at)
        for gone in before.values():
            gone.entry = 0
        if len(self._heap) > 2 * len(self._cursors):
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].entry]
            heapify(self._heap)
        return begun

    def again(self, firings: Sequence[Firing], at: float) -> None:
        """These could not be sent: have them, and what follows of their rules, come due again, not before ``at``."""
        for rule, instant in sorted(firings, key=lambda firing: -firing.instant):
            cursor = self._cursors[rule.id]
            cursor.take_back(instant)
            self._point(cursor, instant, at)

    def awake(self, now: float) -> None:
        """Somebody is at work: what has come due until now is not missed."""
        self._awake = now

    def upcoming(self) -> dict[str, int | None]:
        """The next instant of each rule, by id."""
        return {cursor.rule.id: cursor.instant for cursor in self._cursors.values()}

    def _begin(self, rule: CronRule, fired: int) -> None:
        cursor = self._cursors[rule.id] = _Cursor(rule, fired)
        self._point(cursor, rule.schedule.next(fired))

    def _first(self) -> list[_Entry]:
        """The heap at whose top the earliest instant stands; an empty one if there is none."""
        soon, heap = self._soon, self._heap
        _clean(heap)
        if soon:
            _clean(soon)
        return soon if soon and not (heap and heap[0] < soon[0]) else heap

    def _point(self, cursor: _Cursor, instant: int | None, at: float = 0.0) -> None:
        self._entries += 1
        cursor.instant = instant
        cursor.following = None
        cursor.entry = self._entries
        if instant is not None:
            cursor.at = max(at, cursor.rule.due(instant))
            heappush(self._heap, (cursor.at, cursor.entry, cursor))

    def _look_at_clock(self, now: float) -> None:
        if now < self._awake - GRACE:
            self._go_back(now)
        elif (wake := self.wake) is not None and now - max(wake, self._awake) > GRACE:
            self._catch_up(now, now - wake)

    def _catch_up(self, now: float, pause: float) -> None:
        late = [cursor for cursor in self._cursors.values() if cursor.instant is not None and now - cursor.at > GRACE]
        for cursor in late:
            wanted = _first_wanted(cursor, now)
            cursor.jumped = True
            self._point(cursor, None if wanted is None else cursor.unfired(wanted - 1))
        self.missed += len(late)
        _log.warning(
            "instants of %d rules passed unseen, the earliest %s ago",
            len(late),
            format_duration(round(pause)),
            extra={"event": "missed", "rules": len(late), "pause_seconds": round(pause)},
        )

    def _go_back(self, now: float) -> None:
        """What a clock that was ahead made us pass over is yet to come; what it made us send is not sent again."""
        _log.warning(
            "the clock went back by %s; what was sent is not sent again",
            format_duration(round(self._awake - now)),
            extra={"event": "clock-back"},
        )
        for cursor in self._cursors.values():
            rule = cursor.rule
            instant = cursor.unfired(max(cursor.before, floor(now - rule.jitter)))
            if instant is not None and (cursor.instant is None or instant < cursor.instant):
                cursor.jumped = True
                self._point(cursor, instant)


def _clean(heap: list[_Entry]) -> None:
    """Take away the entries at its top whose cursors were pointed elsewhere."""
    while heap and heap[0][1] != heap[0][2].entry:
        heappop(heap)


def _first_wanted(cursor: _Cursor, now: float) -> int | None:
    """The first instant of a late rule that its policy wants fired."""
    rule = cursor.rule
    schedule = rule.schedule
    dealt = cursor.fired if cursor.instant is None else cursor.instant - 1
    before = max(dealt, floor(now - rule.window) - 1)
    if rule.missed is Missed.ALL:
        return schedule.next(before)
    if rule.missed is Missed.LAST:
        instant = schedule.last(before, floor(now))
        while instant is not None and rule.due(instant) > now:
            instant = schedule.last(before, instant - 1)
        if instant is not None:
            return instant
    instant = schedule.next(max(dealt, floor(now - rule.jitter)))
    while instant is not None and rule.due(instant) <= now:
        instant = schedule.next(instant)
    return instant
