"""Which instants come due when: missed ones, clocks that are set, a bus that is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus import ClosedError, Message, NoSuchTopicError, OutputClosedError, Producer, UnreachableError
from task.codec import decode
from task.task import Task
from taskmasters.clock import SystemClock, VirtualClock
from taskmasters.cron.report import CronReport
from taskmasters.cron.rules import CronRule, Missed
from taskmasters.cron.schedule import parse_schedule
from taskmasters.cron.scheduler import GRACE, Scheduler
from taskmasters.cron.state import NoState, SqliteState, State, StateError
from taskmasters.cron.taskmaster import CronTaskmaster
from taskmasters.reload import RuleFile
from taskmasters.templates import TIME, Template
from taskmasters.zone import find_zone

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
HOUR, DAY = 3600, 86400


def rule(cron: str, id: str = "r", zone: str = "UTC", **changes: object) -> CronRule:
    """A rule with defaults for everything but its schedule."""
    settings: dict[str, object] = {
        "id": id,
        "schedule": parse_schedule(cron, find_zone(zone)),
        "zone": find_zone(zone),
        "offset": 0.0,
        "jitter": 0.0,
        "type": "t",
        "task": Template("{iso}", TIME),
        "job": None,
        "topic": "t",
        "meta": {},
        "missed": Missed.LAST,
        "window": float(DAY),
        "enabled": True,
        "place": (),
    }
    return CronRule(**settings | changes)  # type: ignore[arg-type]


def instants(scheduler: Scheduler, now: float) -> list[float]:
    """What is due, as seconds after START."""
    return [firing.instant - START for firing in scheduler.due(now)]


def test_each_instant_comes_once() -> None:
    """Instants come due at their second, in order of time, and never again."""
    scheduler = Scheduler([rule("* * * * *"), rule("*/2 * * * *", "two")], {}, START)

    assert scheduler.wake == START + 60
    assert instants(scheduler, START + 59) == []
    assert instants(scheduler, START + 60) == [60]
    assert instants(scheduler, START + 60) == []
    assert [firing.rule.id for firing in scheduler.due(START + 120)] == ["two", "r"]


def test_a_disabled_rule_never_fires() -> None:
    """A rule that is not enabled is as if it were not there."""
    assert Scheduler([rule("* * * * *", enabled=False)], {}, START).wake is None


@pytest.mark.parametrize(
    ("missed", "window", "expected"),
    [
        (Missed.SKIP, DAY, []),
        (Missed.LAST, DAY, [5 * HOUR]),
        (Missed.ALL, DAY, [1 * HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 5 * HOUR]),
        (Missed.ALL, 2 * HOUR, [4 * HOUR, 5 * HOUR]),
        (Missed.LAST, 0.25 * HOUR, []),
    ],
)
def test_missed_while_down(missed: Missed, window: float, expected: list[float]) -> None:
    """After five hours and a half down the policy and its window decide; then it goes on as usual."""
    scheduler = Scheduler([rule("@hourly", missed=missed, window=window)], {"r": int(START)}, START + 5.5 * HOUR)

    assert instants(scheduler, START + 5.5 * HOUR) == expected
    assert scheduler.wake == START + 6 * HOUR
    assert instants(scheduler, START + 6 * HOUR) == [6 * HOUR]


@pytest.mark.parametrize("missed", Missed)
def test_a_short_pause_misses_nothing(missed: Missed) -> None:
    """An instant less than a minute late fires whatever the policy: a restart must not lose it."""
    scheduler = Scheduler([rule("@hourly", missed=missed)], {"r": int(START)}, START + HOUR + GRACE - 1)

    assert instants(scheduler, START + HOUR + GRACE - 1) == [HOUR]


def test_a_long_list_of_missed_instants_comes_in_batches() -> None:
    """More than the limit come in later calls, none is left out, and other rules are judged too."""
    rules = [rule("* * * * * *", "all", missed=Missed.ALL), rule("* * * * * *", "skip", missed=Missed.SKIP)]
    scheduler = Scheduler(rules, {"all": int(START), "skip": int(START)}, START + 5000)
    found = []
    while batch := scheduler.due(START + 5000, 999):
        found += [(firing.rule.id, firing.instant - START) for firing in batch]

    assert found == [("all", second) for second in range(1, 5001)]


def test_a_frozen_process_misses() -> None:
    """A process that was stopped for an hour treats what passed like what passed while it was down."""
    scheduler = Scheduler([rule("*/10 * * * *", missed=Missed.LAST)], {}, START)
    assert instants(scheduler, START + 600) == [600]

    assert instants(scheduler, START + 600 + HOUR + 30) == [600 + HOUR]
    assert instants(scheduler, START + 600 + HOUR + 600) == [600 + HOUR + 600]


def test_a_bus_that_was_away_misses_nothing() -> None:
    """What comes due while publishing is stuck fires when it works again, even with skip."""
    scheduler = Scheduler([rule("*/10 * * * *", missed=Missed.SKIP)], {}, START)
    assert instants(scheduler, START + 600) == [600]
    scheduler.awake(START + 600 + HOUR)

    assert instants(scheduler, START + 600 + HOUR) == [600 * n for n in range(2, 8)]


def test_what_could_not_be_sent_comes_again() -> None:
    """Firings given back come due again later, from the earliest on, each once."""
    scheduler = Scheduler([rule("* * * * * *")], {}, START)
    firings = scheduler.due(START + 3)
    scheduler.again(firings, START + 10)

    assert instants(scheduler, START + 9) == []
    assert instants(scheduler, START + 10) == [*range(1, 11)]
    assert instants(scheduler, START + 10) == []


def test_a_clock_set_forward_misses_by_policy() -> None:
    """A clock that jumps an hour ahead is like an hour of pause."""
    scheduler = Scheduler([rule("*/10 * * * *", missed=Missed.SKIP)], {}, START)
    assert instants(scheduler, START + 600) == [600]

    assert instants(scheduler, START + HOUR + 630) == []
    assert scheduler.wake == START + HOUR + 1200


def test_a_clock_set_back_repeats_nothing_and_loses_nothing() -> None:
    """What was sent is not sent again; what a wrong clock made us pass over is."""
    scheduler = Scheduler([rule("*/10 * * * *", missed=Missed.SKIP), rule("0 1 * * *", "daily")], {}, START)
    assert instants(scheduler, START + 600) == [600]
    assert instants(scheduler, START + HOUR + 630) == [HOUR]
    scheduler.awake(START + HOUR + 630)

    assert instants(scheduler, START + 900) == []
    assert scheduler.wake == START + 1200
    assert instants(scheduler, START + 1200) == [1200]
    assert scheduler.upcoming()["daily"] == START + DAY + HOUR


@pytest.mark.parametrize("missed", list(Missed))
def test_a_clock_that_was_ahead_for_a_while(missed: Missed) -> None:
    """What a rule fired by it is not fired again, and what it passed over has its time, for whatever policy."""
    scheduler = Scheduler([rule("*/10 * * * *", missed=missed)], {}, START)
    assert instants(scheduler, START + 600) == [600]
    early = [found for at in range(30, 1231, 30) for found in instants(scheduler, START + 5 * HOUR + at)]
    assert early[-2:] == [5 * HOUR + 600, 5 * HOUR + 1200]

    assert instants(scheduler, START + 900) == []
    late = [instant for at in range(900, 6 * HOUR + 1, 30) for instant in instants(scheduler, START + at)]
    assert sorted(early + late) == list(range(1200, 6 * HOUR + 1, 600))
    assert late == sorted(set(late))


def test_what_could_not_be_sent_by_a_clock_that_was_ahead() -> None:
    """It is sent when its time has come, once, and so is what follows it."""
    scheduler = Scheduler([rule("*/10 * * * *")], {}, START)
    assert instants(scheduler, START + 600) == [600]
    failed = scheduler.due(START + 5 * HOUR)
    assert [firing.instant - START for firing in failed] == [5 * HOUR]
    scheduler.again(failed, START + 5 * HOUR + 20)
    late = [instant for at in range(900, 6 * HOUR + 1, 30) for instant in instants(scheduler, START + at)]
    assert late == list(range(1200, 6 * HOUR + 1, 600))


def test_a_small_step_back_repeats_nothing() -> None:
    """A clock corrected by seconds fires nothing twice."""
    scheduler = Scheduler([rule("* * * * * *")], {}, START)
    assert instants(scheduler, START + 3) == [1, 2, 3]
    assert instants(scheduler, START + 1) == []
    assert instants(scheduler, START + 4) == [4]


def test_jitter_is_the_same_for_everybody() -> None:
    """An instant is delayed by a part of the jitter that depends on rule and instant only."""
    jittery = rule("@hourly", jitter=600.0)
    delays = [jittery.due(int(START) + HOUR * n) - START - HOUR * n for n in range(200)]

    assert all(0 <= delay < 600 for delay in delays)
    assert max(delays) - min(delays) > 400
    assert jittery.due(int(START)) == rule("@hourly", jitter=600.0).due(int(START))
    assert jittery.due(int(START)) != rule("@hourly", "other", jitter=600.0).due(int(START))


def test_jitter_across_a_restart() -> None:
    """An instant whose delay is not over at the restart is not missed but waits."""
    jittery = rule("@hourly", jitter=1800.0, missed=Missed.SKIP)
    due = jittery.due(int(START) + HOUR)
    scheduler = Scheduler([jittery], {"r": int(START)}, due - 1)

    assert instants(scheduler, due - 1) == []
    assert scheduler.wake == due
    assert instants(scheduler, due) == [HOUR]


def test_ten_thousand_rules() -> None:
    """Many rules start, and tick, quickly."""
    rules = [rule(f"{n % 60} {n % 24} * * *", str(n)) for n in range(10_000)]
    began = time.perf_counter()
    scheduler = Scheduler(rules, {}, START)
    found = len(scheduler.due(START, 10_000))
    while (wake := scheduler.wake) is not None and wake < START + DAY:
        found += len(scheduler.due(wake, 10_000))

    assert found == 10_000 - len([n for n in range(10_000) if n % 60 == 0 and n % 24 == 0])
    assert time.perf_counter() - began < 10


class FakeProducer(Producer):
    """Keeps what is published; ``fails`` says how often, or for which topics, it refuses before."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.tasks: list[tuple[float, str, Task]] = []
        self.errors: list[Exception] = []
        self.refused: set[str] = set()
        self.when_sent: Callable[[], None] = lambda: None

    async def publish_many(self, messages: Sequence[Message]) -> None:
        """Publish, or fail as told."""
        if self.errors:
            raise self.errors.pop(0)
        for topic in self.refused & {message.topic for message in messages}:
            raise NoSuchTopicError(f"no topic {topic}", topic=topic)
        for message in messages:
            task = decode(message.body)
            assert message.id == task.id
            self.tasks.append((self.clock.now(), message.topic, task))
        self.when_sent()

    async def close(self) -> None:
        """Nothing to do."""

    @property
    def values(self) -> list[str]:
        """The values of what was published."""
        return [task.value for _, _, task in self.tasks]


def run(rules: list[CronRule], until: float, state: State | None = None, start: float = START) -> FakeProducer:
    """Run a taskmaster on a virtual clock until it has got past ``until``."""
    clock = VirtualClock(start)
    producer = FakeProducer(clock)
    run_with(producer, rules, until, state)
    return producer


def run_with(producer: FakeProducer, rules: list[CronRule], until: float, state: State | None = None) -> CronTaskmaster:
    """The same with this producer."""

    class Until(VirtualClock):
        async def wait_until(self, moment: float) -> None:
            if moment > until:
                master.stop()
            await super().wait_until(moment)

    clock = Until(producer.clock.now())
    producer.clock = clock
    master = CronTaskmaster(rules, producer, state or NoState(), clock)
    asyncio.run(master.run())
    return master


def test_a_year_of_hours() -> None:
    """A year of an hourly rule in a zone with clock changes takes seconds and gives every hour once."""
    began = time.perf_counter()
    producer = run([rule("@hourly", zone="Europe/Berlin")], START + 365 * DAY)
    taken = time.perf_counter() - began

    created = [moment for moment, _, _ in producer.tasks]
    assert created == [START + HOUR * n for n in range(1, 365 * 24 + 1)]
    assert len({task.id for _, _, task in producer.tasks}) == len(set(producer.values)) == 365 * 24
    assert taken < 10


def test_the_task() -> None:
    """The task says its instant in meta and value; its id is the same in every replica and every run."""
    berlin = rule(
        "0 5 * * *", zone="Europe/Berlin", offset=-4.0 * HOUR, job="j", meta={"day": Template("{day_slug}", TIME)}
    )
    first, again = run([berlin], START + DAY).tasks[0][2], run([berlin], START + DAY).tasks[0][2]

    assert first.id == again.id
    assert first.id != run([rule("0 4 * * *", "other")], START + DAY).tasks[0][2].id
    assert first.value == "2026-01-01T01:00:00+01:00"
    assert first.meta == {"day": "2026/01/01", "cron": "2026-01-01T04:00:00Z"}
    assert (first.type, first.job) == ("t", "j")
    assert first.created == datetime(2026, 1, 1, 4, tzinfo=UTC)


def test_a_bus_that_fails_is_tried_again() -> None:
    """A publish that fails is repeated until it works; every instant arrives, also with skip."""
    producer = FakeProducer(VirtualClock(START))
    producer.errors = [UnreachableError("away") for _ in range(30)]
    master = run_with(producer, [rule("* * * * *", missed=Missed.SKIP)], START + 1800)

    assert producer.values == [datetime.fromtimestamp(START + 60 * n, UTC).strftime("%FT%TZ") for n in range(1, 31)]
    assert master.failed == 30
    assert master.trouble == {}


def test_one_topic_that_refuses_does_not_hold_up_the_others() -> None:
    """Tasks of a topic that does not exist wait and are tried again; those of other topics are sent."""
    producer = FakeProducer(VirtualClock(START))
    producer.refused = {"bad"}
    sent = []

    def count() -> None:
        sent.append(1)
        if len(sent) == 10:
            producer.refused = set()

    producer.when_sent = count
    run_with(producer, [rule("* * * * *"), rule("* * * * *", "bad", topic="bad")], START + 1800)

    for topic in ("t", "bad"):
        found = [task.meta["cron"] for _, where, task in producer.tasks if where == topic]
        assert found == sorted(set(found))
        assert len(found) == 30


def test_the_status_page() -> None:
    """The status page tells what was sent and comes next, and is not ready while a topic refuses."""
    producer = FakeProducer(VirtualClock(START))
    producer.refused = {"bad"}
    master = run_with(producer, [rule("@hourly"), rule("30 1 * * *", "bad", topic="bad")], START + 2 * HOUR)
    report = CronReport(master, RuleFile("rules.toml", lambda path: master.rules), "memory:", START)

    said = report.statistics()
    assert (said["rules"], said["sent"]) == (2, 2)
    assert said["next"] == {"r": "2026-01-01T03:00:00Z", "bad": "2026-01-01T01:30:00Z"}
    assert said["trouble"] == {"bad": "no topic bad"}
    assert report.healthy()[0]
    assert report.ready() == (False, "no topic bad")
    values = {metric.name: metric.value for metric in report.metrics()}
    assert values["taskbus_tasks_made_total"] == 2
    assert values["taskbus_ready"] == 0
    assert values["taskbus_publish_errors_total"] == master.failed > 1


@pytest.mark.parametrize("error", [OutputClosedError("gone"), ClosedError("closed")])
def test_a_closed_output_ends_it(error: Exception) -> None:
    """Where nothing can be published any more there is no use in trying."""
    producer = FakeProducer(VirtualClock(START))
    producer.errors = [error]

    with pytest.raises(type(error)):
        run_with(producer, [rule("* * * * *")], START + 1800)


def test_without_a_rule_that_fires_it_waits_for_one() -> None:
    """Where nothing will ever fire it waits; the rules that come then fire."""

    async def main() -> FakeProducer:
        clock = VirtualClock(START)
        producer = FakeProducer(clock)
        master = CronTaskmaster([rule("* * * * *", enabled=False)], producer, NoState(), clock)
        producer.when_sent = master.stop
        running = asyncio.create_task(master.run())
        await asyncio.sleep(0)
        master.use([rule("* * * * *")])
        async with asyncio.timeout(5):
            await running
        return producer

    assert asyncio.run(main()).values == ["2026-01-01T00:01:00Z"]


def test_other_rules_while_it_runs(tmp_path: Path) -> None:
    """New rules take over between two instants: what stays goes on, once each; what is new begins; the rest is gone."""
    state = SqliteState(f"{tmp_path}/state.db")
    clock = VirtualClock(START)
    producer = FakeProducer(clock)
    master = CronTaskmaster([rule("* * * * *"), rule("* * * * *", "gone", topic="gone")], producer, state, clock)

    def count() -> None:
        if len(producer.tasks) == 4:
            master.use([rule("* * * * *"), rule("* * * * *", "new", topic="new")])
        if len(producer.tasks) == 8:
            master.stop()

    producer.when_sent = count
    asyncio.run(master.run())

    made = [(topic, task.meta["cron"][14:16]) for _, topic, task in producer.tasks]
    assert sorted(made) == [
        *[("gone", minute) for minute in ("01", "02")],
        *[("new", minute) for minute in ("03", "04")],
        *[("t", minute) for minute in ("01", "02", "03", "04")],
    ]
    assert state.read({"new": rule("* * * * *").schedule.text}) == {"new": START + 240}
    state.close()


def test_other_rules_while_the_bus_is_away() -> None:
    """What could not be sent yet is sent after the rules were changed, once, and is not taken for missed."""
    clock = VirtualClock(START)
    producer = FakeProducer(clock)
    producer.refused = {"t"}
    rules = [rule("* * * * *", missed=Missed.SKIP)]
    master = CronTaskmaster(rules, producer, NoState(), clock)

    class Away(VirtualClock):
        async def wait_until(self, moment: float) -> None:
            await super().wait_until(moment)
            if self.now() > START + 600 and producer.refused:
                master.use(rules)
                producer.refused = set()

    def enough() -> None:
        if len(producer.tasks) >= 12:
            master.stop()

    producer.clock = master._clock = Away(START)
    producer.when_sent = enough
    asyncio.run(master.run())

    assert producer.values == [f"2026-01-01T00:{minute:02}:00Z" for minute in range(1, 1 + len(producer.tasks))]
    assert master.scheduler.missed == 0


def test_other_rules_after_a_pause(tmp_path: Path) -> None:
    """What was missed and not made up for is not sent because the rule file was edited afterwards."""
    state = SqliteState(f"{tmp_path}/state.db")
    rules = [rule("@hourly", missed=Missed.SKIP)]
    state.write([("r", rules[0].schedule.text, int(START) - 6 * HOUR)])

    class Edited(VirtualClock):
        edited = False

        async def wait_until(self, moment: float) -> None:
            if not self.edited:
                self.edited = True
                master.use(rules)
            await super().wait_until(moment)

    producer = FakeProducer(clock := Edited(START + 600))
    master = CronTaskmaster(rules, producer, state, clock)
    producer.when_sent = master.stop
    asyncio.run(master.run())
    state.close()

    assert clock.edited
    assert producer.values == ["2026-01-01T01:00:00Z"]


def test_stop_while_waiting() -> None:
    """Stop ends the wait for an instant a day away at once."""

    async def main() -> None:
        clock = SystemClock()
        master = CronTaskmaster([rule("@yearly")], FakeProducer(VirtualClock(START)), NoState(), clock)
        running = asyncio.create_task(master.run())
        await asyncio.sleep(0)
        master.stop()
        async with asyncio.timeout(5):
            await running

    asyncio.run(main())


def test_the_state_bridges_a_restart(tmp_path: object) -> None:
    """With a state file what passed in between is made up for; nothing that was sent is sent again."""
    state = SqliteState(f"{tmp_path}/state.db")
    rules = [rule("@hourly", missed=Missed.ALL)]
    first = run(rules, START + 3 * HOUR, state)
    second = run(rules, START + 9 * HOUR, state, start=START + 6.5 * HOUR)
    state.close()

    assert [value[11:13] for value in first.values] == ["01", "02", "03"]
    assert [value[11:13] for value in second.values] == ["04", "05", "06", "07", "08", "09"]


def test_a_rule_that_never_fired_before_the_restart(tmp_path: object) -> None:
    """A rule counts from when it was first seen, so its first instant can be missed and made up for."""
    state = SqliteState(f"{tmp_path}/state.db")
    run([rule("0 5 * * *")], START + HOUR, state)
    second = run([rule("0 5 * * *")], START + 7 * HOUR, state, start=START + 6 * HOUR)

    assert second.values == ["2026-01-01T05:00:00Z"]


def test_another_schedule_begins_anew(tmp_path: object) -> None:
    """A rule whose schedule was edited makes up for nothing."""
    state = SqliteState(f"{tmp_path}/state.db")
    run([rule("0 5 * * *")], START + 6 * HOUR, state)
    second = run([rule("0 7 * * *")], START + 9 * HOUR, state, start=START + 8 * HOUR)

    assert second.values == []


def test_a_failed_publish_is_not_remembered(tmp_path: object) -> None:
    """What was not confirmed is sent by the next run, with the same id."""
    state = SqliteState(f"{tmp_path}/state.db")
    producer = FakeProducer(VirtualClock(START))
    producer.errors = [OutputClosedError("gone")]
    with pytest.raises(OutputClosedError):
        run_with(producer, [rule("@hourly")], START + 9 * HOUR, state)

    assert run([rule("@hourly")], START + HOUR + 30, state, start=START + HOUR + 20).values == ["2026-01-01T01:00:00Z"]


def test_the_state_never_goes_back(tmp_path: object) -> None:
    """Of several replicas that write, the latest instant counts; another schedule overwrites."""
    state, other = SqliteState(f"{tmp_path}/state.db"), SqliteState(f"{tmp_path}/state.db")
    state.write([("r", "s", 20)])
    other.write([("r", "s", 10)])
    assert state.read({"r": "s", "unknown": "s"}) == {"r": 20}

    other.write([("r", "new", 5)])
    assert state.read({"r": "s"}) == {}
    assert state.read({"r": "new"}) == {"r": 5}


def test_a_state_file_that_cannot_be_used(tmp_path: object) -> None:
    """The error names the file and says what to do."""
    with pytest.raises(StateError, match=r"missing/state.db cannot be used: .*--state"):
        SqliteState(f"{tmp_path}/missing/state.db")
    path = f"{tmp_path}/text.db"
    with open(path, "w") as file:
        file.write("this is no database, but it is long enough to be read as one" * 10)
    with pytest.raises(StateError, match=r"text.db cannot be used"):
        SqliteState(path)


def test_a_state_that_fails_does_not_stop_the_tasks() -> None:
    """When the state cannot be written, tasks are sent all the same, and it is tried again."""

    class Failing(NoState):
        writes: list[list[tuple[str, str, int]]]

        def write(self, fired: object) -> None:
            """Fail every second time."""
            self.writes.append(list(fired))  # type: ignore[call-overload]
            if len(self.writes) % 2 == 0:
                raise StateError("disk full")

    state = Failing()
    state.writes = []
    producer = run([rule("@hourly"), rule("30 * * * *", "half")], START + 3 * HOUR, state)

    assert len(producer.tasks) == 6
    assert {name for name, _, _ in state.writes[2]} == {"half", "r"}


def test_a_state_ahead_of_the_clock_is_told(caplog: pytest.LogCaptureFixture, tmp_path: object) -> None:
    """Rules that were sent in what is now the future wait, and a line says so."""
    state = SqliteState(f"{tmp_path}/state.db")
    state.write([("r", rule("@hourly").schedule.text, int(START) + 5 * HOUR)])

    assert run([rule("@hourly")], START + 6 * HOUR, state).values == ["2026-01-01T06:00:00Z"]
    assert "ahead of the clock" in caplog.text


@pytest.mark.parametrize("step", [-7200, -30, 30, 7200])
def test_the_machine_clock_is_looked_at_while_waiting(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """A wait on the machine's clock ends when that clock shows the moment, also after it was set."""
    shown = [1000.0]
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        shown[0] += seconds
        if len(sleeps) == 3:
            shown[0] += step

    monkeypatch.setattr(time, "time", lambda: shown[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(SystemClock().wait_until(1010.0))

    assert shown[0] >= 1010.0
    assert all(0 < seconds <= 1.0 for seconds in sleeps)
    assert sum(sleeps) == pytest.approx(max(3, 10 - step))
