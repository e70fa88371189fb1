"""A consumer that is connected and receives nothing: noticed, told, replaced; and what is no such thing left alone."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import task.connection
from bus import BusURL, CorruptError, Delivery, Depth, UnauthorisedError, UnreachableError
from bus.contract import Bus, Consumer
from bus.memory.bus import MemoryConsumer
from task import Context, Outcome, Task, complete
from task.exits import Exit
from task.report import Report
from task.stats import Stats
from task.watchdog import Watchdog
from tests.conformance.variants import Variant
from tests.helpers import await_until
from tests.unit.engine import Rig, rig, worker

HELLO = worker(lambda task, ctx: complete(task.value))


class _Deaf(MemoryConsumer):
    """Receives only once the bus has opened as many consumers as it takes."""

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        if not isinstance(self._bus, DeafBus) or self._bus.number >= self._bus.cured_at:
            return await super().receive(limit, timeout)
        await self._waiter.wait(timeout)
        return []


class DeafBus(Variant):
    """A memory bus that brings nothing until it was connected to often enough. It counts what is asked of it."""

    consumers = _Deaf
    opened = 0
    cured_at = 2
    depths = 0
    refuses: list[Exception]
    alive: int = 0

    def __init__(self, url: BusURL, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url, clock=clock)
        self.number = 0

    async def open(self) -> None:
        kind = type(self)
        if kind.refuses and kind.opened:
            raise kind.refuses.pop(0)
        kind.opened += 1
        kind.alive += 1
        self.number = kind.opened

    async def close(self) -> None:
        if not self._closed:
            type(self).alive -= 1
        await super().close()

    async def depth(self, topic: str, group: str) -> Depth:
        type(self).depths += 1
        return await super().depth(topic, group)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> type[DeafBus]:
    """What the application connects to instead of the memory bus."""

    class Mine(DeafBus):
        refuses: list[Exception] = []  # noqa: RUF012

    def connect(url: BusURL) -> Bus:
        return Mine(url)

    monkeypatch.setattr(task.connection, "connect", connect)
    return Mine


class Clock:
    """Moved by the test."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return a


def watchdog(clock: Clock, stats: Stats | None = None) -> Watchdog:
    async def depth() -> Depth:
        raise AssertionError("nobody asks")

    return Watchdog(60.0, stats or Stats(), depth, clock=clock, rng=NoJitter())


def looks(dog: Watchdog, clock: Clock, *, seconds: float, ready: int, every: float = 15.0) -> list[float]:
    """Look every so often for so long; the seconds at which it was stalled."""
    began, found = clock.now, []
    while clock.now < began + seconds:
        clock.now += every
        if dog.look(ready):
            found.append(clock.now - began)
    return found


def test_it_is_stalled_when_tasks_stay_ready() -> None:
    """After the time from the first look that found some, then after twice and four times as long, up to 15 minutes."""
    clock = Clock()
    dog = watchdog(clock)

    assert looks(dog, clock, seconds=2000, ready=3) == [75, 210, 465, 960, 1875]
    assert "tasks are ready (3) and none has come for 15m" in dog.trouble


def test_two_looks_at_least() -> None:
    """One look, however late it comes, is not enough."""
    clock = Clock()
    dog = watchdog(clock)

    assert looks(dog, clock, seconds=240, ready=1, every=120.0) == [240]


def test_nothing_ready_is_no_stall() -> None:
    """Not even now and then; and it ends one."""
    clock = Clock()
    stats = Stats()
    dog = watchdog(clock, stats)
    for _ in range(100):
        assert looks(dog, clock, seconds=60, ready=1) == []
        assert looks(dog, clock, seconds=15, ready=0) == []
    assert looks(dog, clock, seconds=75, ready=1) == [75]
    assert dog.trouble

    assert looks(dog, clock, seconds=15, ready=0) == []
    assert dog.trouble == ""
    assert looks(dog, clock, seconds=75, ready=1) == [75]
    assert stats.stalls == 2


def test_what_is_received_ends_the_trouble_at_once() -> None:
    """Without waiting for the next look."""
    clock, stats = Clock(), Stats()
    dog = watchdog(clock, stats)
    looks(dog, clock, seconds=75, ready=1)
    assert dog.trouble

    stats.received += 1

    assert dog.trouble == ""


def test_the_jitter_only_adds() -> None:
    """The instances of a group do not reconnect all at once, and none before its time."""
    found = set()
    for seed in range(50):
        clock = Clock()
        dog = Watchdog(60.0, Stats(), lambda: asyncio.sleep(0, Depth(1)), clock=clock, rng=random.Random(seed))
        found.add(looks(dog, clock, seconds=100, ready=1, every=1.0)[0])

    assert min(found) >= 60
    assert max(found) <= 78
    assert len(found) > 5


def test_a_deaf_consumer_is_replaced(deaf: type[DeafBus], caplog: pytest.LogCaptureFixture) -> None:
    """By a new connection in the same process; every task is done once; told once, counted, and over."""
    deaf.cured_at = 3
    caplog.set_level("INFO", "taskbus.worker")

    async def scenario() -> None:
        async with rig() as r:
            ids = [f"{number}" for number in range(50)]
            await r.send(*(Task("t", id=id) for id in ids))
            async with r.running(HELLO, stall_after=0.04) as app:
                report = Report(app)
                await await_until(lambda: app.stats.stalls)
                while app.stats.received == 0:
                    if app.bus_health.ok and app.receiver is not None and app.receiver.trouble:
                        assert report.ready() == (False, app.receiver.trouble)
                    await asyncio.sleep(0)
                done = await r.take(50)
                await r.idle()
                assert sorted((task["id"] for task in done), key=int) == ids
                assert app.stats.stalls == 2
                assert ("taskbus_stalls_total", 2) in [(m.name, m.value) for m in report.metrics()]
                await await_until(lambda: report.ready()[0])
                await await_until(lambda: "no longer stalled" in caplog.text)
            assert await r.nothing("done")
            assert r.exit is Exit.OK

    asyncio.run(scenario())
    told = [record for record in caplog.records if getattr(record, "event", "") == "stalled"]
    assert [record.levelname for record in told] == ["WARNING"]
    assert (deaf.opened, deaf.alive) == (3, 0)


def test_not_ready_while_stalled(deaf: type[DeafBus]) -> None:
    """With a sentence; ready again once there is nothing to do, though nothing came."""
    deaf.cured_at = 1000

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(HELLO, stall_after=0.04) as app:
                report = Report(app)
                await await_until(lambda: app.stats.stalls and app.bus_health.ok)
                assert app.receiver is not None
                ready, why = report.ready()
                assert not ready
                assert why.startswith("stalled: tasks are ready (1) and none has come for ")
                other = await r.bus.consumer("t", "t")
                await other.ack(await other.receive())
                await await_until(lambda: report.ready() == (True, app.bus_health.detail))
            assert r.exit is Exit.OK

    asyncio.run(scenario())
    assert deaf.alive == 0


def test_an_output_on_another_bus_is_kept(deaf: type[DeafBus]) -> None:
    """Only what the tasks come from is connected to again."""

    async def scenario() -> None:
        async with rig() as r, rig() as other:
            await r.send(Task("t", id="1"))
            deaf.cured_at = 3  # the output is the second connection
            async with r.running(HELLO, stall_after=0.04, out=other.url) as app:
                (done,) = await other.take(1)
                assert done["id"] == "1"
                assert app.stats.stalls == 1
            assert deaf.opened == 3

    asyncio.run(scenario())
    assert deaf.alive == 0


def test_the_bus_is_not_asked_while_tasks_flow(deaf: type[DeafBus]) -> None:
    """Nor while one is being done, however long it takes: that is no stall."""
    deaf.cured_at = 1
    go = threading.Event()

    def long(task: Task, ctx: Context) -> Outcome:
        assert go.wait(10)
        return complete()

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"), Task("t"))
            async with r.running(worker(long), stall_after=0.02) as app:
                await await_until(lambda: app.receiver and app.receiver.held)
                asked = deaf.depths
                began = time.monotonic()
                await await_until(lambda: time.monotonic() - began > 0.1)
                assert deaf.depths == asked
                assert app.stats.stalls == 0
                go.set()
                await r.take(2)

    asyncio.run(scenario())
    assert deaf.opened == 1


def test_nothing_is_closed_while_results_are_delivered(deaf: type[DeafBus]) -> None:
    """A task whose lease was lost is held no more, yet its result may still be on its way to the bus."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(HELLO, stall_after=0.02) as app:
                await await_until(lambda: app.receiver and app.receiver.receiving)
                assert app.receiver is not None
                app.receiver._settling += 1
                began = time.monotonic()
                await await_until(lambda: time.monotonic() - began > 0.1)
                assert app.stats.stalls == 0
                app.receiver._settling -= 1
                await r.take(1)

    asyncio.run(scenario())
    assert deaf.opened == 2


@pytest.mark.parametrize(
    ("declared", "options"),
    [({}, {"stall_after": 0.0}), ({"partitioned": True}, {}), ({"depth": False}, {}), ({"finite": True}, {})],
)
def test_where_it_cannot_know_it_does_nothing(
    deaf: type[DeafBus], declared: dict[str, Any], options: dict[str, Any]
) -> None:
    """Switched off, or where tasks are assigned ahead, or the bus tells no depth, or the input ends."""
    deaf.cured_at = 1
    deaf.declares = declared

    async def scenario() -> None:
        async with rig() as r:
            async with r.running(HELLO, **{"stall_after": 0.01, **options}) as app:
                await r.send(Task("t"))
                await r.take(1)
                began = time.monotonic()
                await await_until(lambda: time.monotonic() - began > 0.1)
                assert app.stats.stalls == 0
            assert deaf.depths == 0

    asyncio.run(scenario())


def test_a_bus_that_cannot_be_asked_is_not_deaf(deaf: type[DeafBus], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is away: its adapter reconnects, and a second connection would help nobody."""
    deaf.cured_at = 1000

    async def away(self: DeafBus, topic: str, group: str) -> Depth:
        deaf.depths += 1
        raise UnreachableError("the server is away")

    monkeypatch.setattr(deaf, "depth", away)

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(HELLO, stall_after=0.01) as app:
                await await_until(lambda: deaf.depths > 10)
                assert app.stats.stalls == 0

    asyncio.run(scenario())
    assert deaf.opened == 1


def test_reconnecting_goes_on_until_it_works(deaf: type[DeafBus], caplog: pytest.LogCaptureFixture) -> None:
    """A server that does not answer just then is waited for."""
    deaf.refuses += [UnreachableError("not yet")]

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t", id="1"))
            async with r.running(HELLO, stall_after=0.04):
                assert [task["id"] for task in await r.take(1)] == ["1"]

    asyncio.run(scenario())
    assert "cannot reconnect, trying again: not yet" in caplog.text
    assert deaf.alive == 0


def test_what_no_repetition_mends_ends_the_application(deaf: type[DeafBus]) -> None:
    """As it would at the start."""
    deaf.refuses += [UnauthorisedError("the password was changed")]

    async def scenario(r: Rig) -> None:
        await r.send(Task("t"))
        with pytest.raises(UnauthorisedError, match="the password was changed"):
            await r.app(HELLO, stall_after=0.04).run()

    async def run() -> None:
        async with rig() as r:
            await scenario(r)

    asyncio.run(run())
    assert deaf.alive == 0


def test_a_store_that_was_replaced_ends_the_application(deaf: type[DeafBus], monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes recorded for the old one must not answer for messages of the new one that have the same ids."""
    made = deaf.consumer

    async def consumer(self: DeafBus, topic: str, group: str | None) -> Consumer:
        found = await made(self, topic, group)
        found.epoch = f"epoch {self.number}"
        return found

    monkeypatch.setattr(deaf, "consumer", consumer)

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            with pytest.raises(CorruptError, match="was replaced while it was in use"):
                await r.app(HELLO, stall_after=0.04).run()

    asyncio.run(scenario())
    assert deaf.alive == 0


def test_a_stop_while_it_reconnects(deaf: type[DeafBus]) -> None:
    """Is obeyed at once, and leaves nothing open."""
    deaf.refuses += [UnreachableError("away")] * 1000

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(HELLO, stall_after=0.04):
                await await_until(lambda: len(deaf.refuses) < 1000)
            assert r.exit is Exit.OK
            assert (await r.bus.depth("t", "t")).ready == 1

    asyncio.run(scenario())
    assert deaf.alive == 0


def test_draining_goes_on_after_a_stall(deaf: type[DeafBus]) -> None:
    """The depth is asked of the new connection, too."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(*(Task("t") for _ in range(5)))
            assert await r.app(HELLO, stall_after=0.04, drain=True).run() is Exit.OK
            assert len(await r.take(5)) == 5

    asyncio.run(scenario())
    assert deaf.opened == 2


def test_lifetime_counts_across_a_stall(deaf: type[DeafBus]) -> None:
    """The same number of tasks, not the number again."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(*(Task("t") for _ in range(5)))
            assert await r.app(HELLO, stall_after=0.04, lifetime=3).run() is Exit.OK
            assert (await r.bus.depth("t", "t")).ready == 2

    asyncio.run(scenario())
