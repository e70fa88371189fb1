"""The delay taskmaster: tasks wait in the store until they are due, however often it is stopped, and are sent once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bus import Bus, Message, Producer, TooLargeError, connect
from task import Dialect, Task, encode
from task.app import invoke
from task.codec import decode
from task.dead import original
from task.delaying import delayed
from taskmasters.clock import VirtualClock
from taskmasters.delay.app import delay
from taskmasters.delay.engine import FATES, DelayEngine
from taskmasters.store import Arrival, Relay, Store, open_store, outbox
from taskmasters.store.outbox import OUTBOX
from taskmasters.stored.report import StoredReport
from taskmasters.stored.taskmaster import StoredTaskmaster
from tests.helpers import await_until

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = NOON.timestamp()


@pytest.fixture
def store(state_url: str) -> Iterator[Store]:
    """An open store with an outbox, of each kind of database."""
    opened = open_store(state_url, OUTBOX)
    yield opened
    opened.close()


def task(run_at: str | None = "1h", id: str | None = "i", kind: str = "t", **more: Any) -> Task:
    meta = more.pop("meta", {}) | ({} if run_at is None else {"run_at": run_at})
    made = Task(kind, "v", id="x", meta=meta, **{"created": NOON, **more})
    return made.replace(id=id)


def apply(store: Store, *tasks: Task, now: float = NOW) -> list[str]:
    """The fates of these."""
    engine = DelayEngine("delay", "delay.dead")
    arrivals = [Arrival(task, task.id or "derived") for task in tasks]
    fates = store.call(lambda tx: engine.apply(tx, arrivals, now))
    return [fate.code or fate.name for fate in fates]


def stored(store: Store) -> list[tuple[str, float, Task]]:
    """Topic, seconds from NOW and task of all that wait, in the order in which they will be sent."""
    found = store.call(lambda tx: outbox.due(tx, 1e12, 1000))
    return [(one.message.topic, one.message.due - NOW, decode(one.message.body)) for one in found]


@pytest.mark.parametrize(
    ("run_at", "seconds", "text"),
    [
        ("2026-01-31T13:00:00Z", 3600, "2026-01-31T13:00:00.000Z"),
        ("2026-01-31T13:00:00+01:00", 0, "2026-01-31T12:00:00.000Z"),
        ("2026-01-31T12:00:30.25", 30.25, "2026-01-31T12:00:30.250Z"),
        ("90s", 90, "2026-01-31T12:01:30.000Z"),
        ("2d", 172800, "2026-02-02T12:00:00.000Z"),
        ("1.5", 1.5, "2026-01-31T12:00:01.500Z"),
        ("2025-01-01", -34171200, "2025-01-01T00:00:00.000Z"),
        ("2199-01-01T00:00:00Z", 5456721600, "2199-01-01T00:00:00.000Z"),
        ("0s", 0, "2026-01-31T12:00:00.000Z"),
    ],
)
def test_moments(store: Store, run_at: str, seconds: float, text: str) -> None:
    """A time, in UTC where it has no zone, or a duration from the moment the task was created; told as a time."""
    assert apply(store, task(run_at)) == ["due" if seconds <= 0 else "delayed"]
    assert stored(store) == [("t", seconds, task(text))]


def test_a_duration_without_a_beginning(store: Store) -> None:
    """A task that does not tell when it was created is delayed from the moment it came."""
    plain = Task("t", "v", id="i", meta={"run_at": "1m"}).replace(created=None)
    assert apply(store, plain, now=NOW + 5) == ["delayed"]
    assert stored(store)[0][1] == 65


def test_everything_else_is_kept(store: Store) -> None:
    """Type, value, id, job, meta, unknown keys and dialect are as they were; the target is no more told."""
    full = task("1h", job="j", meta={"a": "b", "run_topic": "u"}, extra={"more": [1]}, dialect=Dialect.GO)
    assert apply(store, full) == ["delayed"]
    ((topic, _, sent),) = stored(store)
    assert topic == "u"
    assert sent == full.replace(meta={"a": "b", "run_at": "2026-01-31T13:00:00.000Z"})
    assert sent.dialect is Dialect.GO


def test_an_id_is_given_to_what_has_none(store: Store) -> None:
    """A task that came without an id keeps the one it was stored under."""
    assert apply(store, task(id=None)) == ["delayed"]
    assert stored(store)[0][2].id == "derived"


def test_the_same_delay_twice(store: Store) -> None:
    """A message that comes twice is stored once; the same task delayed anew, or to another topic, is another."""
    assert apply(store, task("1h"), task("1h"), task("2h")) == ["delayed"] * 3
    assert apply(store, task("1h"), task("1h", meta={"run_topic": "u"}), now=NOW + 9) == ["delayed"] * 2
    assert [(topic, seconds) for topic, seconds, _ in stored(store)] == [("t", 3600), ("u", 3600), ("t", 7200)]


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (task(None), "no-run-at", "it does not say when"),
        (task("soon"), "bad-run-at", "'soon': write a time like 2026-01-31T08:00:00Z, or a duration"),
        (task("-1s"), "bad-run-at", "'-1s'"),
        (task("4000d"), "bad-run-at", "at most ten years"),
        (task("1769860800"), "bad-run-at", "'1769860800'"),
        (task(""), "bad-run-at", "''"),
        (task("1h", kind="a b"), "bad-topic", "give the topic to send to as meta 'run_topic'"),
        (task("1h", meta={"run_topic": "a b"}), "bad-topic", "'a b' is not a topic name"),
        (task("1h", kind="delay"), "bad-topic", "where no worker finds it"),
        (task("1h", meta={"run_topic": "delay.dead"}), "bad-topic", "where no worker finds it"),
    ],
)
def test_what_cannot_be_delayed(store: Store, wrong: Task, code: str, said: str) -> None:
    """What does not say when and where is a dead letter with a reason; the others of the batch are stored."""
    engine = DelayEngine("delay", "delay.dead")
    arrivals = [Arrival(wrong, "a"), Arrival(task(), "b")]
    fates = store.call(lambda tx: engine.apply(tx, arrivals, NOW))
    assert [(fate.name, fate.code) for fate in fates] == [("dead", code), ("delayed", "")]
    assert said in fates[0].reason
    assert len(stored(store)) == 1


def test_made_for_it() -> None:
    """``delayed`` makes a task that the taskmaster sends to the topic it was meant for, with its own meta."""
    made = delayed(Task("t", id="i", meta={"run_topic": "old", "a": "b"}), NOON, "u")
    assert made.meta == {"a": "b", "run_at": "2026-01-31T12:00:00.000Z", "run_topic": "u"}
    assert delayed(made, NOON, "t").meta == {"a": "b", "run_at": "2026-01-31T12:00:00.000Z"}


class Small(Producer):
    """Takes messages of at most 1000 bytes."""

    def __init__(self, inner: Producer) -> None:
        self.inner = inner

    async def publish_many(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if len(message.body) > 1000:
                raise TooLargeError("too large", topic=message.topic, size=len(message.body), limit=1000)
        await self.inner.publish_many(messages)

    async def close(self) -> None:
        await self.inner.close()


async def work(
    store: Store, bus: Bus, clock: VirtualClock, received: int, sent: int, small: bool = False
) -> StoredTaskmaster:
    """Run a taskmaster until it has received and sent so many, then stop it; it must end by itself."""
    producer = await bus.producer()
    master = StoredTaskmaster(
        DelayEngine("delay", "delay.dead"),
        store,
        await bus.consumer("delay", "delay"),
        Small(producer) if small else producer,
        clock,
        dead_topic="delay.dead",
    )
    running = asyncio.create_task(master.run())
    await await_until(lambda: master.inbox.stats.results.total() >= received and master.relay.sent >= sent)
    master.stop()
    async with asyncio.timeout(10):
        await running
    await master.inbox._consumer.close()
    return master


async def values(bus: Bus, topic: str) -> list[str]:
    return [decode(peeked.body).value for peeked in await bus.peek(topic, limit=5000)]


@pytest.mark.no_faults("its clock stands still while what failed waits to be tried again")
def test_tasks_are_sent_when_due(store: Store) -> None:
    """In the order of their moments, not before; those that wait are there after a restart."""

    class Frozen(VirtualClock):
        """Goes on only when it is set."""

        async def wait_until(self, moment: float) -> None:
            await await_until(lambda: self.now() >= moment)

    async def main() -> None:
        clock = Frozen(NOW)
        async with connect(f"memory:{uuid4().hex}") as bus, await bus.producer() as producer:
            tasks = [Task("t", str(n), id=str(n), meta={"run_at": f"{n}m"}, created=NOON) for n in (3, 1, 2, 0)]
            await producer.publish_many([Message("delay", encode(task)) for task in tasks])
            await work(store, bus, clock, received=4, sent=1)
            assert await values(bus, "t") == ["0"]
            assert (await bus.depth("delay", "delay")).total == 0

            clock.set(NOW + 119.9)
            await work(store, bus, clock, received=0, sent=1)
            assert await values(bus, "t") == ["0", "1"]
            clock.set(NOW + 180.0)
            await work(store, bus, clock, received=0, sent=2)
            assert await values(bus, "t") == ["0", "1", "2", "3"]
            assert store.call(outbox.count) == 0

    asyncio.run(main())


@pytest.mark.no_faults("it counts the steps of the relay")
def test_a_year_passes(store: Store) -> None:
    """Woken only when the store says that one is due, tasks of a whole year go out in order, each in its moment."""

    async def main() -> None:
        async with connect(f"memory:{uuid4().hex}") as bus, await bus.producer() as producer:
            days = [task(f"{n}d", id=str(n)).replace(value=str(n)) for n in range(365, -1, -1)]
            assert apply(store, *days) == [*["delayed"] * 365, "due"]
            clock = VirtualClock(NOW)
            relay = Relay(store, producer, clock)
            for day in range(366):
                assert store.call(outbox.wake) == NOW + day * 86400
                clock.set(NOW + day * 86400)
                assert await relay.step() is None
                await relay.step()
                assert relay.sent == day + 1
            assert store.call(outbox.wake) is None
            assert await values(bus, "t") == [str(n) for n in range(366)]

    asyncio.run(main())


def test_what_the_bus_does_not_take(store: Store) -> None:
    """A task too large for the bus becomes a dead letter, itself in parts; nothing is lost, the others are sent."""

    async def main() -> None:
        async with connect(f"memory:{uuid4().hex}") as bus, await bus.producer() as producer:
            big = encode(Task("t", "x" * 3000, id="big", meta={"run_at": "0s"}, created=NOON))
            middle = encode(Task("t", "y" * 700, id="middle", meta={"run_at": "0s"}, created=NOON))
            fits = encode(Task("t", "small", id="small", meta={"run_at": "0s"}, created=NOON))
            await producer.publish_many([Message("delay", body) for body in (big, middle, fits)])
            master = await work(store, bus, VirtualClock(NOW), received=3, sent=2, small=True)
            assert master.relay.refused >= 2

            assert await values(bus, "t") == ["y" * 700, "small"]
            letters = [json.loads(peeked.body) for peeked in await bus.peek("delay.dead", limit=50)]
            assert {(letter["code"], letter["topic"], letter["id"]) for letter in letters} == {("refused", "t", "big")}
            assert [letter["part"] for letter in letters] == list(range(1, letters[0]["parts"] + 1))
            body = b"".join(original(letter) for letter in letters)
            assert decode(body).value == "x" * 3000

    asyncio.run(main())


def test_the_status_page(store: Store) -> None:
    """It counts what came, by what became of it, and what was sent."""

    async def main() -> None:
        async with connect(f"memory:{uuid4().hex}") as bus, await bus.producer() as producer:
            bodies = [encode(task("0s", id="1")), encode(task("9d", id="2")), b"rubbish", encode(task(None, id="3"))]
            await producer.publish_many([Message("delay", body) for body in bodies])
            clock = VirtualClock(NOW)
            master = await work(store, bus, clock, received=4, sent=1)
            report = StoredReport("delay", FATES, master, {"topic": "delay"})

            said = report.statistics()
            assert (said["app"], said["received"], said["topic"], said["trouble"]) == ("delay", 4, "delay", "")
            assert said["results"] == {"due": 1, "delayed": 1, "dead": 2}
            assert report.healthy() == report.ready() == (True, "ok")
            samples = {(metric.name, metric.labels.get("result")): metric.value for metric in report.metrics()}
            assert samples["taskbus_fates_total", "delayed"] == 1
            assert samples["taskbus_tasks_made_total", None] == said["sent"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--topic", "a b"], "'a b' is not a topic name"),
        (["--group", "a b"], "'a b' is not a group name"),
        (["--dead-topic", "delay"], "--dead-topic delay: the tasks are received from there too"),
        (["--state", "oracle://x"], "state cannot be kept in oracle"),
        (["--bus", "nonsense:"], "nonsense"),
    ],
)
def test_wrong_use(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: list[str], said: str
) -> None:
    """What cannot be done gives exit code 2 and a sentence."""
    monkeypatch.chdir(tmp_path)
    assert invoke(delay, args) == 2
    out, err = capfd.readouterr()
    assert (out, said in err) == ("", True), err
