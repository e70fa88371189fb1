"""What the sqlite bus keeps in its tables, in which order it gives it out, and when it forgets it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import bus
from bus import Consumer, Delivery, Message
from bus.conformance import ManualClock
from bus.sql import membership, statements
from bus.sql.sqlite import SqliteDatabase
from tests.helpers import await_until

HOUR = 3600.0


class Place:
    """A database file, and a clock moved by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()

    def connect(self, options: str = "") -> bus.Bus:
        return bus.connect(f"sqlite:{self.path}{options}", clock=self.clock)

    def count(self, table: str) -> int:
        (count,) = self.query(f"SELECT COUNT(*) FROM {table}")[0]
        return int(count)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path)
        found = connection.execute(text).fetchall()
        connection.close()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "work.db")


def scenario(place: Place, work: Callable[[bus.Bus, bus.Producer], Awaitable[None]], options: str = "") -> None:
    """Run ``work`` with an open bus and a producer of it."""

    async def main() -> None:
        async with place.connect(options) as b, await b.producer() as producer:
            await work(b, producer)

    asyncio.run(main())


def bodies(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def messages(count: int, start: int = 0, topic: str = "t") -> list[Message]:
    return [Message(topic, body) for body in bodies(count, start)]


async def take(consumer: Consumer, count: int) -> list[Delivery]:
    return await consumer.receive(count, timeout=0)


def of(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


# Order


def test_released_messages_keep_their_place(place: Place) -> None:
    """What is handed back unbegun comes before what was published later, in its old order."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish_many(messages(6))
        taken = await take(consumer, 4)
        place.clock.advance(1.0)
        await producer.publish_many(messages(2, 6))
        await consumer.release([taken[2], taken[0]])
        await consumer.release([taken[3], taken[1]])
        assert of(await take(consumer, 100)) == bodies(8)

    scenario(place, work)


def test_a_nacked_message_goes_behind_what_was_ready_before(place: Place) -> None:
    """A message that fails for ever keeps nobody waiting, not even a consumer of one at a time."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish_many(messages(3))
        seen: list[bytes] = []
        for _ in range(6):
            place.clock.advance(1.0)
            (delivery,) = await take(consumer, 1)
            seen.append(delivery.body)
            await consumer.nack([delivery])
        assert seen == bodies(3) * 2

    scenario(place, work)


def test_a_crashed_consumers_messages_come_first(place: Place) -> None:
    """When a lease ends its message does not go behind a backlog: it had its turn already."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        crashed, other = await b.consumer("t", "g"), await b.consumer("t", "g")
        await producer.publish_many(messages(10))
        await take(crashed, 2)
        place.clock.advance(31.0)
        assert of(await take(other, 4)) == [*bodies(2), *bodies(2, 2)]

    scenario(place, work)


def test_delayed_messages_take_their_place_when_due(place: Place) -> None:
    """A delayed message comes after what was published before its time and before what was published after it."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish("t", b"due", delay=10.0)
        await producer.publish("t", b"early")
        place.clock.advance(20.0)
        await producer.publish("t", b"late")
        assert of(await take(consumer, 2)) == [b"early", b"due"]
        assert of(await take(consumer, 2)) == [b"late"]

    scenario(place, work)


def test_a_clock_set_back_changes_no_order(place: Place) -> None:
    """Messages keep their order though the clock went back between them."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish_many(messages(2))
        held = await take(consumer, 1)
        place.clock.advance(-HOUR)
        await producer.publish_many(messages(2, 2))
        place.clock.advance(HOUR)
        await consumer.release(held)
        assert of(await take(consumer, 10)) == bodies(4)

    scenario(place, work)


def test_a_delay_beyond_all_time(place: Place) -> None:
    """A delay of for ever is kept, without an overflow."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish("t", b"never", delay=float("inf"))
        await producer.publish("t", b"now")
        (delivery,) = await take(consumer, 10)
        await consumer.nack([delivery], delay=1e300)
        place.clock.advance(1e9)
        assert await take(consumer, 10) == []
        assert await b.depth("t", "g") == bus.Depth(0, 2)

    scenario(place, work)


# Batches


def test_a_claim_is_limited_by_weight(place: Place) -> None:
    """However many large messages are asked for, one claim brings 32 MiB of new ones and 32 of others at most."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        size = 7 * 1024**2
        for _ in range(12):
            await producer.publish("t", bytes(size))
        taken = await take(consumer, 500)
        assert len(taken) == 4
        taken += await take(consumer, 500)
        await consumer.release(taken)
        assert len(await take(consumer, 500)) == 4 + 4

    scenario(place, work, "?max_size=8MiB&synchronous=normal")


def test_bodies_of_any_bytes(place: Place) -> None:
    """Empty bodies, NUL, invalid UTF-8 and bodies of every length arrive unchanged, in one batch."""
    wanted = [b"", b"\0", b"a\0b", b"\xff\xfe", '"é"'.encode(), b"", *(bytes([n % 256]) * n for n in range(300)), b""]

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish_many([Message("t", body) for body in wanted])
        taken = await take(consumer, 1000)
        assert of(taken) == wanted
        await consumer.nack(taken, reason='"quoted", \n and é')
        again = await take(consumer, 1000)
        assert of(again) == wanted
        assert {delivery.history for delivery in again} == {('"quoted", \n and é',)}

    scenario(place, work)


def test_history_is_bounded(place: Place) -> None:
    """The latest hundred reasons are kept."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish("t", b"{}")
        for number in range(105):
            (delivery,) = await take(consumer, 1)
            await consumer.nack([delivery], reason=str(number))
        (delivery,) = await take(consumer, 1)
        assert delivery.history == tuple(str(number) for number in range(5, 105))
        assert delivery.attempt == 106

    scenario(place, work)


# Leases


def test_a_consumer_can_lose_a_lease_to_itself(place: Place) -> None:
    """Of two deliveries of one message to one consumer only the later can be settled."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish("t", b"{}")
        early = await take(consumer, 1)
        place.clock.advance(31.0)
        late = await take(consumer, 1)
        assert late[0].attempt == 2
        for settle in (consumer.ack, consumer.nack, consumer.release):
            with pytest.raises(bus.LeaseLostError, match=r"1 of 1 messages were delivered again .* within 30 s: 1"):
                await settle(early)
        assert await consumer.extend([*early, *late]) == early
        await consumer.ack(late)
        assert place.count("messages") == 0

    scenario(place, work)


def test_finish_with_a_lost_lease_does_nothing(place: Place) -> None:
    """Nothing is published nor settled when a lease is lost, known so before or not; the others can be finished."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        late, other = await b.consumer("t", "g"), await b.consumer("t", "g")
        await producer.publish_many(messages(2))
        lost = await take(late, 2)
        place.clock.advance(31.0)
        await take(other, 2)
        await producer.publish_many(messages(2, 2))
        held = await take(late, 2)
        assert await late.extend(lost[:1]) == lost[:1]
        for gone in (lost[0], lost[1]):
            with pytest.raises(bus.LeaseLostError) as error:
                await late.finish([gone, *held], messages(1, topic="done"), producer)
            assert error.value.deliveries == (gone,)
        assert await b.topics() == ["t"]
        await late.finish(held, messages(1, topic="done"), producer)
        assert await b.depth("t", "g") == bus.Depth(0, 0, 2)
        assert await b.depth("done", "g") == bus.Depth(1)

    scenario(place, work)


# What is kept, and for whom


def test_a_message_is_deleted_when_every_group_is_done(place: Place) -> None:
    """Done by one group it stays for the other, in either order and in part; done by both, nothing of it is left."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        one, two = await b.consumer("t", "one"), await b.consumer("t", "two")
        await producer.publish_many(messages(4))
        await producer.publish("t", b"delayed", delay=1.0)
        place.clock.advance(2.0)
        first, second = await take(one, 5), await take(two, 3)
        await one.ack(first[1:])
        assert place.count("messages") == 5
        await two.ack(second)
        assert place.count("messages") == 3
        await two.ack(await take(two, 10))
        assert place.count("messages") == 1
        await one.ack(first[:1])
        assert place.count("messages") == place.count("deliveries") == 0
        assert place.query("SELECT kept FROM topics") == [(0,)]

    scenario(place, work)


def test_a_later_group_receives_what_is_stored(place: Place) -> None:
    """A group created later gets what others have not finished, delayed messages with their delay, and its depth."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        first = await b.consumer("t", "first")
        await producer.publish_many(messages(6))
        await producer.publish_many([Message("t", b"delayed", delay=60.0)])
        taken = await take(first, 4)
        await first.ack(taken[1:3])
        assert await b.depth("t", "later") == bus.Depth(4, 1)
        later = await b.consumer("t", "later")
        assert await b.depth("t", "later") == bus.Depth(4, 1)
        assert of(await take(later, 10)) == [b"0", b"3", b"4", b"5"]
        assert await b.depth("t", "later") == bus.Depth(0, 1, 4)
        place.clock.advance(25.0)
        await later.extend([])
        assert await b.depth("t", "first") == bus.Depth(2, 1, 2)

    scenario(place, work)


def test_numbers_are_never_used_again(place: Place) -> None:
    """A message id is new even after every message was deleted and the bus opened anew."""
    ids: list[str] = []

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish_many([*messages(2), Message("t", b"delayed", delay=0.001)])
        place.clock.advance(1.0)
        taken = await take(consumer, 10)
        await consumer.ack(taken)
        ids.extend(delivery.id for delivery in taken)

    scenario(place, work)
    scenario(place, work)
    assert sorted(ids, key=int) == ["1", "2", "3", "4", "5", "6"]


def test_published_ids_are_forgotten(place: Place) -> None:
    """The memory of ids does not grow with the messages published, only with those of the window."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        for number in range(60):
            await producer.publish_many([Message("t", b"", id=f"{number}-{n}") for n in range(20)])
            place.clock.advance(60.0)
        assert place.count("published") <= 20 * (10 + 5 + 1)
        await producer.publish("t", b"", id="59-0")
        assert (await b.depth("t", "g")).total == 1200

    scenario(place, work)


# Broadcasts


def test_a_broadcast_sees_what_groups_delete(place: Place) -> None:
    """A broadcast receives everything published while it is open, though a group has acknowledged it long before."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        group = await b.consumer("t", "g")
        await producer.publish("t", b"before")
        await producer.publish("t", b"due", delay=5.0)
        listener = await b.consumer("t", None)
        await producer.publish_many(messages(5))
        await producer.publish("t", b"delayed", delay=5.0)
        place.clock.advance(6.0)
        await group.ack(await take(group, 10))
        heard = await take(listener, 10)
        assert of(heard) == [*bodies(5), b"delayed"]
        await listener.ack(heard[:3])
        assert place.count("messages") == 3
        assert await b.groups("t") == ["g"]
        await listener.close()
        assert place.count("messages") == place.count("deliveries") == 0
        assert place.query("SELECT kept FROM topics") == [(0,)]

    scenario(place, work)


@pytest.mark.no_faults("it looks into the adapter")
def test_a_broadcasts_group_is_renewed_and_forgotten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of a dead broadcast is forgotten with what only it kept; that of a living one never is."""
    monkeypatch.setattr(membership, "_DEAF", 0.05)
    monkeypatch.setattr("bus.sql.engine._CHORES", 0.02)

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        group = await b.consumer("t", "g")
        alive = await b.consumer("t", None)
        # One that died: its group stands in the table, and nobody renews it.
        engine: Any = b.__dict__["_engine"]
        dead: Any = await b.consumer("t", None)
        engine.forget(dead.__dict__["_member"])
        await producer.publish_many(messages(3))
        await group.ack(await take(group, 3))
        await alive.ack(await take(alive, 3))
        await await_until(lambda: place.count("topic_groups") == 2)
        await await_until(lambda: place.count("messages") == 0)
        renewed = place.query("SELECT heard FROM topic_groups WHERE heard IS NOT NULL")
        await await_until(lambda: place.query("SELECT heard FROM topic_groups WHERE heard IS NOT NULL") != renewed)
        # It was only thought dead: it listens on, from now.
        await producer.publish("t", b"missed")
        assert await take(dead, 1) == []
        await producer.publish("t", b"heard")
        assert of(await take(dead, 1)) == [b"heard"]
        assert of(await take(alive, 5)) == [b"missed", b"heard"]

    scenario(place, work)


def test_a_clock_set_forward_forgets_no_broadcast(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jump of the clock, or waking up after hours, makes nobody believe that a listener is dead."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        listener = await b.consumer("t", None)
        jumped = time.time() + 5 * HOUR
        monkeypatch.setattr(time, "time", lambda: jumped)
        async with place.connect() as other:
            assert await other.topics() == ["t"]
        assert place.count("topic_groups") == 1
        await producer.publish("t", b"{}")
        assert len(await take(listener, 1)) == 1

    scenario(place, work)


# Cost


def test_every_statement_finds_its_rows_by_an_index(tmp_path: Path) -> None:
    """No statement reads a whole table that grows, so no cost grows with what is queued."""
    database = SqliteDatabase(str(tmp_path / "work.db"), synchronous="normal", wait=1.0)
    database.open()
    database.close()
    connection = sqlite3.connect(tmp_path / "work.db")
    texts = {name: getattr(statements, name) for name in statements.__all__ if name.isupper()}
    for name, statement in texts.items():
        text = statement.text if isinstance(statement, statements.Bulk) else statement
        text = re.sub(r"IN :(\w+)", r"IN (SELECT value FROM json_each(:\1))", text)
        values = dict.fromkeys(re.findall(r":(\w+)", text))
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
        scans = [step for step in plan if step.startswith("SCAN") and "json_each" not in step and step != "SCAN chosen"]
        if name in ("LISTENERS", "TOPICS"):
            continue  # these list all there are: topics and groups, not messages
        assert not scans, f"{name}: {plan}"
        # PEEK_DELIVERIES sorts what one group has taken and not settled.
        assert name == "PEEK_DELIVERIES" or not any("TEMP B-TREE" in step for step in plan), f"{name}: {plan}"
    connection.close()


def work_of(path: Path, queued: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many steps of SQLite's machine a depth and a task take with so many messages queued."""
    place = Place(path)
    steps = 0
    connected = sqlite3.connect

    def counting(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connected(*args, **options)

        def count() -> None:
            nonlocal steps
            steps += 1

        connection.set_progress_handler(count, 1)
        return connection

    monkeypatch.setattr("bus.sql.sqlite.sqlite3.connect", counting)
    found: dict[str, int] = {}

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        nonlocal steps
        consumer = await b.consumer("t", "g")
        await producer.publish_many(messages(queued))
        await producer.publish_many([Message("t", b"x", delay=HOUR)] * 50)
        await take(consumer, 20)
        steps = 0
        await b.depth("t", "g")
        found["depth"], steps = steps, 0
        await b.depth("t", "unknown")
        found["depth of an unknown group"], steps = steps, 0
        await b.peek("t")
        found["peek"], steps = steps, 0
        batch = await take(consumer, 50)
        await consumer.finish(batch, messages(50, topic="done"), producer)
        found["tasks"], steps = steps, 0

    scenario(place, work, "?synchronous=normal")
    monkeypatch.undo()
    return found


def test_cost_does_not_grow_with_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the depth and doing a task cost the same with 200 messages queued and with 20,000."""
    few = work_of(tmp_path / "few.db", 200, monkeypatch)
    many = work_of(tmp_path / "many.db", 20_000, monkeypatch)
    for what, steps in few.items():
        assert many[what] <= steps * 1.1 + 50, what
