"""Tasks of cron that are made before they come due, and noted after they were published."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from task.codec import decode
from taskmasters.clock import VirtualClock
from taskmasters.cron.ahead import Ahead, message
from taskmasters.cron.notes import Notes
from taskmasters.cron.rules import CronRule, Missed
from taskmasters.cron.scheduler import GRACE, Firing, Scheduler
from taskmasters.cron.state import Fired, NoState, StateError
from taskmasters.cron.taskmaster import CronTaskmaster
from taskmasters.templates import TIME, Template
from tests.helpers import await_until
from tests.unit.test_cron_scheduler import START, FakeProducer, rule


def _of(ids: set[str], firings: list[Firing]) -> list[tuple[int, str]]:
    return sorted((firing.instant, firing.rule.id) for firing in firings if firing.rule.id in ids)


def _rules(dice: random.Random) -> list[CronRule]:
    crons = ["* * * * * *", "*/7 * * * * *", "* * * * *", "5-10 * * * * *", "@every 90s", "@hourly"]
    return [
        rule(dice.choice(crons), f"r{n}", missed=dice.choice(list(Missed)), jitter=dice.choice([0.0, 0.0, 25.0]))
        for n in range(20)
    ]


@pytest.mark.parametrize("seed", range(30))
def test_looking_ahead_changes_nothing(seed: int) -> None:
    """Whatever comes due, is postponed, or passed over by a clock that is set: looked at before, it comes alike."""
    dice = random.Random(seed)
    rules = _rules(dice)
    plain, looked = Scheduler(rules, {}, START), Scheduler(rules, {}, START)
    now = START
    told: list[Firing] = []
    for _ in range(300):
        now += dice.choice([0.0, 0.3, 1.0, 1.0, 2.5, 20.0, -3.0, GRACE + 30, -GRACE - 30])
        if dice.random() < 0.7:
            told += looked.ahead(now + dice.choice([0.5, 10.0, 100.0]), dice.choice([1, 5, 1000]))
        limit = dice.choice([3, 1000])
        firings = plain.due(now, limit)
        assert looked.due(now, limit) == firings
        if firings and dice.random() < 0.2:
            late = now + dice.choice([0.2, 5.0])
            plain.again(firings, late)
            looked.again(firings, late)
        assert plain.wake == looked.wake
        assert plain.upcoming() == looked.upcoming()
    assert plain.missed == looked.missed
    assert told


def test_each_is_told_ahead_once() -> None:
    """What will come due by a moment is told once, in order; what follows it when that has come due."""
    scheduler = Scheduler([rule("* * * * * *"), rule("*/2 * * * * *", "two")], {}, START)
    assert [(firing.rule.id, firing.instant - START) for firing in scheduler.ahead(START + 10, 1)] == [("r", 1)]
    assert [(firing.rule.id, firing.instant - START) for firing in scheduler.ahead(START + 10, 9)] == [("two", 2)]
    assert scheduler.ahead(START + 10, 9) == []
    assert scheduler.unseen is None
    scheduler.due(START + 1)
    assert scheduler.unseen == START + 2
    assert scheduler.ahead(START + 1.9, 9) == []
    assert [(firing.rule.id, firing.instant - START) for firing in scheduler.ahead(START + 2, 9)] == [("r", 2)]


@pytest.mark.parametrize("seed", range(10))
def test_other_rules_in_the_midst(seed: int) -> None:
    """A rule that stays fires as if nothing had been edited; one that is new or has another schedule from then on."""
    dice = random.Random(seed)
    rules = _rules(dice)
    plain, edited = Scheduler(rules, {}, START), Scheduler(rules, {}, START)
    now, stay = START, {one.id for one in rules}
    for turn in range(60):
        now += dice.choice([0.3, 1.0, 2.5])
        edited.ahead(now + 10, 1000)
        if turn % 3 == 0:
            changed = dice.sample(rules[10:], 3)
            stay -= {one.id for one in changed}
            new = [rule("*/3 * * * * *", f"new{turn}")]
            others = [rule(f"{turn % 60} * * * * *", one.id) for one in changed[:2]]
            again = [
                rule(one.schedule.text.removesuffix(" UTC"), one.id, missed=one.missed, jitter=one.jitter)
                for one in rules
                if one.id in stay
            ]
            begun = edited.use([*again, *others, *new], now)
            assert [one.id for one in begun] == [one.id for one in (*others, *new)]
        assert _of(stay, edited.due(now)) == _of(stay, plain.due(now))
        if turn % 3 == 0:
            assert edited.due(now) == []
    assert {id for id in edited.upcoming() if id in stay} == stay
    assert len(edited.upcoming()) == len(stay) + 3
    edited.use([], now)
    assert edited.wake is None


def test_a_message_made_before_is_the_one_made_then() -> None:
    """It says that it was created when it came due; made late, it is the same but for that."""
    one = rule("* * * * *")
    scheduler = Scheduler([one], {}, START)
    ahead = Ahead(scheduler)
    assert ahead.wake is not None
    assert not ahead.make(ahead.wake - 1)
    assert ahead.make(ahead.wake)
    assert not ahead.make(START + 40)
    (firing,) = scheduler.due(START + 90)
    made, late = ahead.take(firing, START + 90), ahead.take(firing, START + 90)

    assert decode(made.body).created == datetime.fromtimestamp(START + 60, UTC)
    assert decode(late.body).created == datetime.fromtimestamp(START + 90, UTC)
    assert decode(made.body).replace(created=None) == decode(late.body).replace(created=None)
    assert made._replace(body=b"") == late._replace(body=b"")
    assert late == message(firing, START + 90)


def test_an_edit_counts_for_what_was_made_before() -> None:
    """What was made by the earlier rule and not published yet is made anew by the one that replaces it."""

    class Edited(VirtualClock):
        async def wait_until(self, moment: float) -> None:
            if moment == START + 60 and not made:
                made.append(scheduler.unseen)
                self.set(moment)
                master.use([rule("* * * * *", task=Template("new {iso}", TIME))])
            await super().wait_until(moment)

    made: list[float | None] = []
    clock = Edited(START)
    producer = FakeProducer(clock)
    master = CronTaskmaster([rule("* * * * *")], producer, NoState(), clock)
    scheduler = master.scheduler
    producer.when_sent = master.stop
    asyncio.run(master.run())
    assert made == [None]
    assert producer.values == ["new 2026-01-01T00:01:00Z"]


class _Slow(NoState):
    """Writes only when it is let."""

    def __init__(self) -> None:
        self.writes: list[list[Fired]] = []
        self.let = threading.Semaphore(0)
        self.at_once = 0
        self.fails = False

    def write(self, fired: Iterable[Fired]) -> None:
        self.at_once += 1
        assert self.at_once == 1
        self.writes.append(list(fired))
        assert self.let.acquire(timeout=60)
        self.at_once -= 1
        if self.fails:
            raise StateError("disk full")


def test_notes_are_one_at_a_time() -> None:
    """What comes while one is being written is in the next, each rule with its latest instant only."""

    async def main() -> None:
        state = _Slow()
        notes = Notes(state)
        notes.begin()
        await notes.written()
        notes.add([("a", "s", 1), ("b", "s", 1)])
        assert not state.writes
        notes.begin()
        await await_until(lambda: len(state.writes) == 1)
        notes.add([("a", "s", 2)])
        notes.add([("a", "s", 3)])
        notes.begin()
        state.let.release(2)
        await notes.written()
        assert state.writes == [[("a", "s", 1), ("b", "s", 1)], [("a", "s", 3)]]

    asyncio.run(main())


def test_a_note_that_failed_is_written_with_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """The failure is told, and the latest instants are kept; it is not tried again before there is another."""

    async def main() -> None:
        state = _Slow()
        notes = Notes(state)
        state.fails = True
        state.let.release(10)
        notes.add([("a", "s", 1), ("b", "s", 1)])
        await notes.written()
        await notes.written()
        state.fails = False
        notes.add([("a", "s", 2)])
        await notes.written()
        assert state.writes == [[("a", "s", 1), ("b", "s", 1)], [("a", "s", 2), ("b", "s", 1)]]

    asyncio.run(main())
    assert caplog.text.count("may be sent again") == 1


def test_what_nobody_expected_of_a_note_ends_it() -> None:
    """A state that breaks in another way than it may is a defect, and is not passed over."""

    class Broken(NoState):
        def write(self, fired: Iterable[Fired]) -> None:
            raise ZeroDivisionError

    async def main() -> None:
        notes = Notes(Broken())
        notes.add([("a", "s", 1)])
        await notes.written()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_a_slow_state_does_not_hold_up_the_tasks() -> None:
    """Tasks are published while what was published before is still being noted; all is noted at the end."""
    state = _Slow()
    state.let.release()
    clock = VirtualClock(START)
    producer = FakeProducer(clock)
    master = CronTaskmaster([rule("* * * * *")], producer, state, clock)

    def sent() -> None:
        if len(producer.tasks) == 5:
            assert sum(len(write) for write in state.writes[1:]) < 5
            state.let.release(100)
            master.stop()

    producer.when_sent = sent
    asyncio.run(master.run())
    assert producer.values == [f"2026-01-01T00:0{minute}:00Z" for minute in range(1, 6)]
    assert state.writes[-1][-1][2] == START + 300


def test_what_was_published_is_noted_when_another_replica_leads() -> None:
    """A replica that has just published and leads no more notes it, so that the next need not publish it again."""

    class Leader:
        leads = True

        async def elected(self) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        state, leader, clock = _Slow(), Leader(), VirtualClock(START)
        state.let.release(100)
        producer = FakeProducer(clock)
        producer.when_sent = lambda: setattr(leader, "leads", False)
        master = CronTaskmaster([rule("* * * * *")], producer, state, clock, leader)
        running = asyncio.create_task(master.run())
        await await_until(lambda: len(state.writes) == 2)
        assert [instant for _, _, instant in state.writes[1]] == [START + 60]
        assert not running.done()
        master.stop()
        await running

    asyncio.run(main())
