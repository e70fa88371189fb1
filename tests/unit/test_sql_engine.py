"""The thread behind a sqlite bus: what is joined, what is kept apart, who is woken, and what it costs to wait."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bus
from bus import Message
from tests.helpers import wait_until


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every statement that SQLite is given."""
    given: list[str] = []
    connected = sqlite3.connect

    def tracing(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connected(*args, **options)
        connection.set_trace_callback(given.append)
        return connection

    monkeypatch.setattr("bus.sql.sqlite.sqlite3.connect", tracing)
    yield given
    monkeypatch.undo()


def with_bus(path: Path, work: Callable[[bus.Bus, bus.Producer], Awaitable[None]], options: str = "") -> None:
    """Run ``work`` with an open bus and a producer of it."""

    async def scenario() -> None:
        async with bus.connect(f"sqlite:{path}/work.db{options}") as b, await b.producer() as producer:
            await work(b, producer)

    asyncio.run(scenario())


def blocker(path: Path) -> sqlite3.Connection:
    """Somebody who writes, and takes a long time over it."""
    connection = sqlite3.connect(path / "work.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_concurrent_calls_share_a_commit(tmp_path: Path, statements: list[str]) -> None:
    """Hundreds of publishes and settlements asked for at the same time cost a few commits, not hundreds."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        statements.clear()
        await asyncio.gather(*(producer.publish("t", b"%d" % number) for number in range(300)))
        assert statements.count("COMMIT") < 10
        taken = await consumer.receive(300)
        assert sorted(int(delivery.body) for delivery in taken) == list(range(300))
        statements.clear()
        acks = [consumer.ack([delivery]) for delivery in taken[:150]]
        nacks = [consumer.nack([delivery]) for delivery in taken[150:]]
        await asyncio.gather(*acks, *nacks)
        assert statements.count("COMMIT") < 10
        assert await b.depth("t", "g") == bus.Depth(150)

    with_bus(tmp_path, work)


def test_a_batch_takes_few_statements(tmp_path: Path, statements: list[str]) -> None:
    """Five hundred tasks are taken and finished in some thirty statements: each may wait for Python's lock."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish_many([Message("t", b"{}")] * 500)
        statements.clear()
        taken = await consumer.receive(500)
        await consumer.finish(taken, [Message("done", b"{}", id=delivery.id) for delivery in taken], producer)
        assert len(taken) == 500
        assert len(statements) < 45, statements

    with_bus(tmp_path, work)


@pytest.mark.parametrize("level", ["full", "normal"])
def test_what_is_synced_to_the_disk(tmp_path: Path, statements: list[str], level: str) -> None:
    """Publishing, acknowledging and finishing are synced as asked for; what may be done again is not."""

    def levels() -> list[str]:
        """The levels at which was written since the last call."""
        found: list[str] = []
        current, writing = "", False
        for statement in statements:
            if statement.startswith("PRAGMA synchronous="):
                current = statement.partition("=")[2]
            elif statement.startswith("BEGIN"):
                writing = statement == "BEGIN IMMEDIATE"
            elif statement == "COMMIT" and writing:
                found.append(current)
        statements[:] = [f"PRAGMA synchronous={current}"]
        return found

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        levels()
        await producer.publish_many([Message("t", b"{}")] * 4)
        assert levels() == [level]
        taken = await consumer.receive(4)
        await consumer.extend(taken)
        await consumer.nack(taken[:1])
        await consumer.release(taken[1:2])
        assert levels() == ["normal"] * 4
        await consumer.ack(taken[2:3])
        await consumer.finish(taken[3:], [Message("done", b"{}")], producer)
        assert levels() == [level] * 2

    with_bus(tmp_path, work, f"?synchronous={level}")


def test_a_lost_lease_is_lost_alone(tmp_path: Path) -> None:
    """Of several calls of ``finish`` in one transaction only that of the lost lease fails, and publishes nothing."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        late, other = await b.consumer("t", "g"), await b.consumer("t", "g")
        await producer.publish_many([Message("t", b"lost"), Message("t", b"held")])
        lost = await late.receive(1)
        held = await other.receive(1)
        connection = sqlite3.connect(tmp_path / "work.db")
        with connection:
            connection.execute("UPDATE deliveries SET owner = 1 WHERE message_id = (SELECT MIN(id) FROM messages)")
        connection.close()
        results = await asyncio.gather(
            late.finish(lost, [Message("done", b"lost")], producer),
            other.finish(held, [Message("done", b"held")], producer),
            producer.publish("done", b"plain"),
            return_exceptions=True,
        )
        assert isinstance(results[0], bus.LeaseLostError)
        assert results[1] is None
        assert results[2] is None
        done = await (await b.consumer("done", "g")).receive(10)
        assert sorted(delivery.body for delivery in done) == [b"held", b"plain"]

    with_bus(tmp_path, work)


@pytest.mark.no_faults("it looks into the adapter")
def test_a_fault_in_one_call_is_not_the_others(tmp_path: Path) -> None:
    """What fails unexpectedly in a joined transaction is undone alone; the others are done."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        engine: Any = b.__dict__["_engine"]

        def faulty(step: Any) -> None:
            step.tx.run("INSERT INTO topics (name, last, kept) VALUES ('half', 0, 0)")
            raise ZeroDivisionError

        held = blocker(tmp_path)  # so that all of them are waiting when the thread can go on
        calls = [
            asyncio.ensure_future(producer.publish("t", b"1")),
            engine.submit(faulty, durable=True),
            asyncio.ensure_future(producer.publish("t", b"2")),
        ]
        await asyncio.wait(calls, timeout=0.1)
        held.execute("ROLLBACK")
        held.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[1], ZeroDivisionError)
        assert results[0] is None
        assert results[2] is None
        assert await b.topics() == ["t"]
        assert (await b.depth("t", "g")).total == 2

    with_bus(tmp_path, work)


def test_the_event_loop_goes_on_while_a_lock_is_waited_for(tmp_path: Path) -> None:
    """Whatever the database makes us wait for, no other coroutine waits."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        held = blocker(tmp_path)
        publishing = asyncio.create_task(producer.publish("t", b"{}"))
        longest, last, end = 0.0, time.monotonic(), time.monotonic() + 0.5
        while time.monotonic() < end:
            await asyncio.sleep(0)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        assert not publishing.done()
        assert longest < 0.4
        held.execute("ROLLBACK")
        held.close()
        await publishing

    with_bus(tmp_path, work)


def test_a_publish_wakes_the_consumers_of_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting receive is answered by the publish itself, not by the next look at the database."""
    monkeypatch.setattr("bus.sql.engine._QUICK", 60.0)

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer, other = await b.consumer("t", "g"), await b.consumer("u", "g")
        for _ in range(3):
            receiving = [asyncio.create_task(consumer.receive(1)), asyncio.create_task(other.receive(1))]
            await asyncio.wait(receiving, timeout=0.02)
            async with asyncio.timeout(5):
                await producer.publish("t", b"{}")
                (delivery,) = await receiving[0]
                await consumer.nack([delivery])
                (again,) = await consumer.receive(1)
                await consumer.finish([again], [Message("u", b"{}")], producer)
                await other.ack(await receiving[1])

    with_bus(tmp_path, work, "?poll=10s")


def test_other_processes_are_noticed_soon(tmp_path: Path) -> None:
    """A message published by another connection arrives within about the time between two looks."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        waits: list[float] = []
        async with bus.connect(f"sqlite:{tmp_path}/work.db") as elsewhere, await elsewhere.producer() as theirs:
            for _ in range(10):
                receiving = asyncio.create_task(consumer.receive(1))
                await asyncio.wait({receiving}, timeout=0.02)
                await theirs.publish("t", b"{}")
                published = time.monotonic()
                await consumer.ack(await receiving)
                waits.append(time.monotonic() - published)
        assert sorted(waits)[5] < 0.1

    with_bus(tmp_path, work)


def test_waiting_costs_next_to_nothing(tmp_path: Path) -> None:
    """Three consumers without work use less than 1 % of a processor, also when one waits for a delayed message."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumers = [await b.consumer(topic, "g") for topic in "abc"]
        await producer.publish("a", b"{}", delay=3600.0)
        receiving = [asyncio.create_task(consumer.receive(1)) for consumer in consumers]
        await asyncio.wait(receiving, timeout=2.5)  # until the looks have become rare
        shares: list[float] = []
        while len(shares) < 4 and min(shares, default=1.0) >= 0.01:  # a busy machine makes everything dearer
            began, used = time.monotonic(), time.process_time()
            await asyncio.wait(receiving, timeout=1.0)
            shares.append((time.process_time() - used) / (time.monotonic() - began))
        assert min(shares) < 0.01, shares
        await b.close()
        await asyncio.gather(*receiving)

    with_bus(tmp_path, work)


def test_a_cancelled_finish_is_done_once(tmp_path: Path) -> None:
    """Cancelling the wait for a settlement leaves it done; settling again waits for it and does nothing more."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish("t", b"{}")
        taken = await consumer.receive(1)
        held = blocker(tmp_path)
        first = asyncio.create_task(consumer.finish(taken, [Message("done", b"{}")], producer))
        await asyncio.wait({first}, timeout=0.05)
        first.cancel()
        await asyncio.wait({first})
        second = asyncio.create_task(consumer.ack(taken))
        assert await consumer.extend(taken) == []
        await asyncio.wait({second}, timeout=0.05)
        assert not second.done()
        held.execute("ROLLBACK")
        held.close()
        await second
        assert (await b.depth("t", "g")).total == 0
        assert (await b.depth("done", "g")).total == 1

    with_bus(tmp_path, work)


def test_a_settlement_that_failed_can_be_made_by_the_next(tmp_path: Path) -> None:
    """A second finish that waited for a first one which failed does it itself."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        await producer.publish("t", b"{}")
        taken = await consumer.receive(1)
        held = blocker(tmp_path)
        message = Message("done", b"{}")
        first = asyncio.create_task(consumer.finish(taken, [message], producer))
        second = asyncio.create_task(consumer.finish(taken, [message], producer))
        with pytest.raises(bus.UnreachableError):
            await first
        held.execute("ROLLBACK")
        held.close()
        await second
        assert (await b.depth("t", "g")).total == 0
        assert (await b.depth("done", "g")).total == 1

    with_bus(tmp_path, work, "?wait=300ms")


@pytest.mark.no_faults("with faults, two connections finish in two steps")
def test_finish_with_the_producer_of_another_connection(tmp_path: Path) -> None:
    """Two connections to one file are one bus, unless the other promises more durability; another file is another."""

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")
        for number, (url, atomic) in enumerate(
            [("work.db", False), ("../" + tmp_path.name + "/work.db?synchronous=normal", True), ("b.db", False)]
        ):
            await producer.publish("t", b"{}")
            (delivery,) = await consumer.receive(1)
            async with bus.connect(f"sqlite:{tmp_path}/{url}") as other, await other.producer() as theirs:
                connection = sqlite3.connect(tmp_path / "work.db")
                with connection:
                    connection.execute("UPDATE deliveries SET owner = 1")
                connection.close()
                with pytest.raises(bus.LeaseLostError):
                    await consumer.finish([delivery], [Message(f"done-{number}", b"{}")], theirs)
                assert (await other.depth(f"done-{number}", "g")).total == (0 if atomic else 1)
            await b.topics()
            connection = sqlite3.connect(tmp_path / "work.db")
            with connection:
                connection.execute("DELETE FROM deliveries")
            connection.close()

    with_bus(tmp_path, work, "?synchronous=normal")


def test_no_thread_outlives_its_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus that was not closed when its event loop ended leaves no thread behind."""
    monkeypatch.setattr("bus.sql.engine._CHORES", 0.02)
    before = set(threading.enumerate())

    async def scenario() -> None:
        await bus.connect(f"sqlite:{tmp_path}/work.db").open()

    asyncio.run(scenario())
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_broken_clock_leaves_nobody_waiting(tmp_path: Path) -> None:
    """When the clock that was handed in raises, calls fail with it instead of hanging."""

    def clock() -> float:
        raise ZeroDivisionError

    async def scenario() -> None:
        b = bus.connect(f"sqlite:{tmp_path}/work.db", clock=clock)
        async with asyncio.timeout(10):
            await b.open()
            with pytest.raises(ZeroDivisionError):
                await b.topics()
            await b.close()

    asyncio.run(scenario())


def test_many_processes_write_at_once(tmp_path: Path) -> None:
    """Four processes that publish and finish as fast as they can never see a lock, and nothing is lost."""
    script = """
import asyncio, sys
import bus
from bus import Message
async def main(url, name):
    async with bus.connect(url) as b:
        producer, consumer = await b.producer(), await b.consumer("t", "g")
        for number in range(150):
            await producer.publish("t", f"{name}-{number}".encode())
            taken = await consumer.receive(2, timeout=0)
            await consumer.finish(taken, [Message("done", delivery.body) for delivery in taken], producer)
asyncio.run(main(*sys.argv[1:]))
"""
    url = f"sqlite:{tmp_path}/work.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, url, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    assert [process.communicate()[1] for process in processes] == [""] * 4

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        done, left = await b.consumer("done", "g"), await b.consumer("t", "g")
        bodies = [delivery.body.decode() for delivery in await done.receive(1000, timeout=0)]
        bodies += [delivery.body.decode() for delivery in await left.receive(1000, timeout=0)]
        assert sorted(bodies) == sorted(f"{name}-{number}" for name in range(4) for number in range(150))

    with_bus(tmp_path, work)


def test_memory_does_not_grow_with_what_is_done(tmp_path: Path) -> None:
    """Sixty thousand tasks later the process is as large as it was after twenty thousand."""

    def megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    async def work(b: bus.Bus, producer: bus.Producer) -> None:
        consumer = await b.consumer("t", "g")

        async def do(count: int) -> None:
            for start in range(0, count, 500):
                await producer.publish_many([Message("t", b"{}", id=f"{count}-{start}-{n}") for n in range(500)])
                taken = await consumer.receive(500)
                await consumer.finish(taken, [Message("t2", b"{}") for _ in taken], producer)

        await do(20_000)
        before = megabytes()
        await do(60_000)
        assert megabytes() - before < 3.0

    with_bus(tmp_path, work, "?synchronous=normal")
