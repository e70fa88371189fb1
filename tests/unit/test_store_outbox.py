"""The outbox, its relay and the inbox: what was decided is sent, once by id, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from bus import Bus, Consumer, Message, NoSuchTopicError, Producer, TooLargeError, UnreachableError, connect
from task.errors import StateDataError, StateError
from taskmasters.clock import SystemClock, VirtualClock
from taskmasters.store import Arrival, Fate, Inbox, Outgoing, Relay, Store, open_store, outbox
from taskmasters.store.outbox import OUTBOX
from taskmasters.store.relay import Refused
from tests.helpers import await_until


@pytest.fixture
def store(state_url: str) -> Iterator[Store]:
    """An open store with an outbox."""
    opened = open_store(state_url, OUTBOX)
    yield opened
    opened.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    """The same on SQLite alone."""
    opened = open_store(str(tmp_path / "state.db"), OUTBOX)
    yield opened
    opened.close()


def out(id: str, due: float = 0.0, topic: str = "t", body: bytes = b"") -> Outgoing:
    return Outgoing(id, topic, body or id.encode(), due)


def waiting(store: Store, now: float = 1e12) -> list[str]:
    return [stored.message.id for stored in store.call(lambda tx: outbox.due(tx, now, 1000))]


def test_the_same_id_is_put_once(store: Store) -> None:
    """Also after it was sent, until it is forgotten; ids differ by case."""
    store.call(lambda tx: outbox.put(tx, out("a"), out("b"), out("a", body=b"other")))
    store.call(lambda tx: outbox.put(tx, out("b"), out("A")))
    stored = store.call(lambda tx: outbox.due(tx, 1.0, 10))
    assert [(one.message.id, one.message.body) for one in stored] == [("a", b"a"), ("b", b"b"), ("A", b"A")]

    store.call(lambda tx: outbox.sent(tx, stored[:2], 50.0))
    store.call(lambda tx: outbox.put(tx, out("a"), out("c")))
    assert waiting(store) == ["A", "c"]
    assert store.call(outbox.count) == 2

    assert store.call(lambda tx: outbox.forget(tx, 50.0)) == 0
    assert store.call(lambda tx: outbox.forget(tx, 50.1)) == 2
    store.call(lambda tx: outbox.put(tx, out("a")))
    assert waiting(store) == ["A", "c", "a"]


def test_due_by_moment(store: Store) -> None:
    """What is due comes in order of its moment, then of putting, at most so many, without held topics."""
    store.call(lambda tx: outbox.put(tx, out("late", 9.0), out("x", 2.0), out("y", 1.0, "u"), out("z", 2.0)))
    assert waiting(store, 2.0) == ["y", "x", "z"]
    assert [s.message.id for s in store.call(lambda tx: outbox.due(tx, 5.0, 2, ["u"]))] == ["x", "z"]
    assert store.call(outbox.wake) == 1.0
    assert store.call(lambda tx: outbox.withdraw(tx, ["y", "late", "unknown"])) == 2
    assert store.call(outbox.wake) == 2.0


def test_what_was_withdrawn_is_marked_in_vain(store: Store) -> None:
    """A message withdrawn between being published and being marked does not leave its place to another one."""
    store.call(lambda tx: outbox.put(tx, out("a")))
    published = store.call(lambda tx: outbox.due(tx, 1.0, 10))
    store.call(lambda tx: outbox.withdraw(tx, ["a"]))
    store.call(lambda tx: outbox.put(tx, out("b")))
    store.call(lambda tx: outbox.sent(tx, published, 1.0))
    assert waiting(store) == ["b"]


def test_large_bodies_and_long_ids(store: Store) -> None:
    """A body of a megabyte comes back as it was; an id that is no key is refused before the database cuts it."""
    body = bytes(range(256)) * 4096
    store.call(lambda tx: outbox.put(tx, out("big", body=body)))
    assert store.call(lambda tx: outbox.due(tx, 1.0, 1))[0].message.body == body
    with pytest.raises(ValueError, match="at most 200"):
        store.call(lambda tx: outbox.put(tx, out("i" * 201)))


class Gate(Producer):
    """A producer that refuses as it is told."""

    def __init__(self, inner: Producer) -> None:
        self.inner = inner
        self.refusal: Callable[[Message], Exception | None] = lambda message: None

    async def publish_many(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if error := self.refusal(message):
                raise error
        await self.inner.publish_many(messages)

    async def close(self) -> None:
        await self.inner.close()


@asynccontextmanager
async def relaying(store: Store, told: list[Refused] | None = None) -> AsyncIterator[tuple[Bus, Gate, Relay]]:
    """A relay at work on a bus in memory."""

    def refused(tx: Connection, some: Sequence[Refused]) -> None:
        if told is not None:
            told.extend(some)

    async with connect(f"memory:{uuid4().hex}") as bus:
        gate = Gate(await bus.producer())
        relay = Relay(store, gate, SystemClock(), refused=refused)
        work = asyncio.create_task(relay.run())
        try:
            yield bus, gate, relay
            relay.stop()
            async with asyncio.timeout(10):
                await work
        finally:
            work.cancel()


async def bodies(bus: Bus, topic: str = "t") -> list[str]:
    return [peeked.body.decode() for peeked in await bus.peek(topic, limit=10_000)]


def test_what_is_put_is_sent_in_order(store: Store) -> None:
    """Everything due is published, marked, and remembered."""

    async def main() -> None:
        ids = [f"{number:04}" for number in range(1200)]
        async with relaying(store) as (bus, _, relay):
            await store.run(lambda tx: outbox.put(tx, *map(out, ids), out("tomorrow", 1e12)))
            relay.nudge()
            await await_until(lambda: relay.sent == 1200)
            assert await bodies(bus) == ids
            await store.run(lambda tx: outbox.put(tx, *map(out, ids)))
            assert waiting(store, 1e11) == []
        assert relay.trouble == ""

    asyncio.run(main())


def test_a_bus_that_goes_and_comes(small: Store) -> None:
    """Nothing is lost while the bus refuses; one topic that refuses does not hold up another."""

    async def main() -> None:
        async with relaying(small) as (bus, gate, relay):
            gate.refusal = lambda message: UnreachableError("gone")
            await small.run(lambda tx: outbox.put(tx, out("a"), out("b", topic="u")))
            relay.nudge()
            await await_until(lambda: relay.failed)
            assert "gone" in relay.trouble
            gate.refusal = lambda message: NoSuchTopicError("no topic t") if message.topic == "t" else None
            await await_until(lambda: relay.sent == 1)
            assert await bodies(bus, "u") == ["b"]
            await await_until(lambda: relay.trouble == "cannot publish to t: no topic t")
            gate.refusal = lambda message: None
            await await_until(lambda: relay.sent == 2)
            assert await bodies(bus) == ["a"]
            assert relay.trouble == ""

    asyncio.run(main())


def test_what_the_bus_never_takes_is_told(small: Store) -> None:
    """One that is too large is given up and told; its neighbours are sent."""

    async def main() -> None:
        told: list[Refused] = []
        async with relaying(small, told) as (bus, gate, relay):
            gate.refusal = lambda message: TooLargeError("too large", size=9, limit=8) if message.id == "big" else None
            await small.run(lambda tx: outbox.put(tx, out("a"), out("big"), out("c")))
            relay.nudge()
            await await_until(lambda: relay.sent == 2 and told)
            assert await bodies(bus) == ["a", "c"]
            assert [(one.message.id, one.reason) for one in told] == [("big", "too large")]
            assert waiting(small) == []

    asyncio.run(main())


def test_sent_is_marked_before_it_ends(small: Store) -> None:
    """A relay told to stop while it publishes marks what was published, so that the next one does not again."""

    async def main() -> None:
        async with relaying(small) as (_, gate, relay):

            def stopping(message: Message) -> None:
                relay.stop()

            gate.refusal = stopping
            await small.run(lambda tx: outbox.put(tx, out("a")))
            relay.nudge()
            await await_until(lambda: relay._stopping)
        assert waiting(small) == []

    asyncio.run(main())


@pytest.mark.no_faults("it counts the steps of the relay")
def test_ids_are_forgotten_after_the_retention(small: Store) -> None:
    """The relay forgets what it sent long ago."""

    async def main() -> None:
        clock = VirtualClock(1000.0)
        async with connect(f"memory:{uuid4().hex}") as bus:
            relay = Relay(small, await bus.producer(), clock, retention=100.0)
            small.call(lambda tx: outbox.put(tx, out("a"), out("b", 1e6)))
            while await relay.step() is None:
                pass
            clock.set(1101.0)
            await relay.step()
            assert relay.waiting == 1
            small.call(lambda tx: outbox.put(tx, out("a")))
            assert waiting(small, 2000.0) == ["a"]

    asyncio.run(main())


def test_a_database_that_fails_for_a_while(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was published while it could not be marked is not published again."""

    async def main() -> None:
        async with relaying(small) as (bus, _, relay):
            run = small.run
            failing = False

            async def flaky(work: Callable[[Connection], object]) -> object:
                if failing:
                    raise StateError("no room", transient=True)
                return await run(work)

            monkeypatch.setattr(small, "run", flaky)
            await run(lambda tx: outbox.put(tx, out("a")))
            relay.nudge()

            while not await bodies(bus):  # noqa: ASYNC110 - before the relay has taken its next turn
                await asyncio.sleep(0)
            failing = True
            await await_until(lambda: "no room" in relay.trouble or relay.sent)
            failing = False
            await await_until(lambda: relay.sent == 1 and not relay.trouble)
            assert await bodies(bus) == ["a"]

    asyncio.run(main())


@asynccontextmanager
async def receiving(
    apply: Callable[[Sequence[Arrival]], list[Fate]], options: str = ""
) -> AsyncIterator[tuple[Bus, Inbox]]:
    """An inbox at work on a bus in memory."""

    async def applied(arrivals: Sequence[Arrival]) -> list[Fate]:
        return apply(arrivals)

    async with connect(f"memory:{uuid4().hex}{options}") as bus:
        consumer: Consumer = await bus.consumer("in", "g")
        inbox = Inbox(consumer, await bus.producer(), applied, dead_topic="in.dead")
        work = asyncio.create_task(inbox.run())
        try:
            yield bus, inbox
            inbox.stop()
            async with asyncio.timeout(10):
                await work
        finally:
            work.cancel()


async def feed(bus: Bus, inbox: Inbox, *messages: bytes) -> None:
    await (await bus.producer()).publish_many([Message("in", body) for body in messages])
    await await_until(lambda: inbox.stats.results.total() == inbox.stats.received >= len(messages))
    assert (await bus.depth("in", "g")).total == 0


def task(value: str, **more: str) -> bytes:
    return json.dumps({"type": "x", "task": value, **more}).encode()


def test_every_arrival_has_its_fate() -> None:
    """What is no task and what is refused are kept as dead letters, the rest is counted by its fate."""

    def apply(arrivals: Sequence[Arrival]) -> list[Fate]:
        return [Fate("dead", "odd", "I do not like it") if a.task.value == "odd" else Fate("kept") for a in arrivals]

    async def main() -> None:
        async with receiving(apply) as (bus, inbox):
            await feed(bus, inbox, task("a"), b"nonsense", task("odd"), task("b"))
            assert inbox.stats.results == {"kept": 2, "dead": 2}
            letters = [json.loads(text) for text in await bodies(bus, "in.dead")]
            assert {(letter["code"], letter["body"]) for letter in letters} == {
                ("not-json", "nonsense"),
                ("odd", task("odd").decode()),
            }

    asyncio.run(main())


def test_an_arrival_without_id_has_always_the_same() -> None:
    """Its id comes from the message; one with an id keeps it."""
    seen: list[str] = []

    def apply(arrivals: Sequence[Arrival]) -> list[Fate]:
        seen.extend(arrival.id for arrival in arrivals)
        if len(seen) <= 2:
            raise StateError("later", transient=True)
        return [Fate("kept") for _ in arrivals]

    async def main() -> None:
        async with receiving(apply) as (bus, inbox):
            await feed(bus, inbox, task("a"), task("b", id="mine"))
            assert inbox.trouble == ""
        assert seen[0] == seen[-2]
        assert seen[-1] == "mine"
        assert seen[0]

    asyncio.run(main())


@pytest.mark.no_faults("a dead letter whose confirmation got lost is published again")
def test_one_the_database_refuses_does_not_hold_up_the_rest() -> None:
    """A batch it refuses is applied one by one, and the one that is to blame becomes a dead letter."""

    def apply(arrivals: Sequence[Arrival]) -> list[Fate]:
        if any(arrival.task.value == "bad" for arrival in arrivals):
            raise StateDataError("does not fit")
        return [Fate("kept") for _ in arrivals]

    async def main() -> None:
        async with receiving(apply) as (bus, inbox):
            await feed(bus, inbox, task("a"), task("bad"), task("b"))
            assert inbox.stats.results == {"kept": 2, "dead": 1}
            (letter,) = [json.loads(text) for text in await bodies(bus, "in.dead")]
            assert (letter["code"], letter["reason"]) == ("not-stored", "does not fit")

    asyncio.run(main())


@pytest.mark.no_faults("an injected fault takes leases away")
def test_leases_are_kept_while_the_database_refuses() -> None:
    """What is held while the state cannot be used goes to nobody else."""
    failing = [True]

    def apply(arrivals: Sequence[Arrival]) -> list[Fate]:
        if failing[0]:
            raise StateError("no room", transient=True)
        return [Fate("kept") for _ in arrivals]

    async def main() -> None:
        async with receiving(apply, "?lease=150ms") as (bus, inbox):
            await (await bus.producer()).publish("in", task("a"))
            await await_until(lambda: inbox.trouble == "no room")
            other = await bus.consumer("in", "g")
            assert await other.receive(1, timeout=0.5) == []
            failing[0] = False
            await await_until(lambda: inbox.stats.results["kept"] == 1)
            assert inbox.stats.lease_lost == 0

    asyncio.run(main())
