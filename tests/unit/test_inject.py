"""Fault injection: what fails is drawn from a seed, counted and told, and never more than the contract allows."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Collection

import pytest

import bus
from bus import BusError, BusURLError, Delivery, Health, Message, TooLargeError, UnconfirmedError, UnreachableError
from bus.inject import OPERATIONS, Fault, InjectedBus, Injector, inject
from task import Task
from task.exits import Exit
from tests.unit.engine import rig, worker

pytestmark = pytest.mark.no_faults("it injects its own")

_names = itertools.count()


def injected(rate: float = 1.0, seed: int = 7, operations: Collection[str] = OPERATIONS, name: str = "") -> InjectedBus:
    """A memory bus with faults."""
    inner = bus.connect(f"memory:{name or f'inject-{next(_names)}'}")
    return inject(inner, rate=rate, seed=seed, wait=0.001, operations=operations)


async def publish(faulty: InjectedBus, count: int) -> list[str]:
    """What came of publishing ``count`` messages one by one."""
    outcomes = []
    producer = await faulty.producer()
    for number in range(count):
        try:
            await producer.publish("t", b"%d" % number)
            outcomes.append("")
        except (UnreachableError, UnconfirmedError) as error:
            outcomes.append(str(error))
    return outcomes


def test_the_same_seed_gives_the_same_faults() -> None:
    """And another seed gives others."""

    async def main(seed: int) -> list[str]:
        async with injected(0.3, seed, ["publish"]) as faulty:
            return await publish(faulty, 100)

    first, again, other = asyncio.run(main(7)), asyncio.run(main(7)), asyncio.run(main(8))

    assert first == again
    assert first != other
    assert 10 < len([outcome for outcome in first if outcome]) < 60


def test_what_was_not_done_is_not_there_and_what_was_is() -> None:
    """An error that says nothing was done is right, and one that says all was done is right too."""

    async def main() -> None:
        async with injected(0.5, 7, ["publish"]) as faulty:
            outcomes = await publish(faulty, 60)
            there = {int(peeked.body) for peeked in await faulty.inner.peek("t", limit=100)}
        assert there == {number for number, text in enumerate(outcomes) if "nothing was done" not in text}
        kinds = {fault for _, fault in faulty.injector.injected}
        assert kinds == {Fault.FAILED, Fault.TIMEOUT, Fault.UNKNOWN}
        assert faulty.injector.injected.total() == sum(bool(text) for text in outcomes)

    asyncio.run(main())


def test_a_batch_is_done_in_part_from_its_beginning() -> None:
    """And the error says how much of it."""

    async def main() -> None:
        parts = set()
        for seed in range(40):
            async with injected(1.0, seed, ["publish"]) as faulty:
                producer = await faulty.producer()
                with pytest.raises(BusError) as caught:
                    await producer.publish_many([Message("t", b"%d" % number) for number in range(5)])
                there = [int(peeked.body) for peeked in await faulty.inner.peek("t", limit=100)]
            assert there == list(range(len(there)))
            if ("publish", Fault.PARTIAL) in faulty.injector.injected:
                assert isinstance(caught.value, UnconfirmedError)
                assert f"did {len(there)} of 5" in str(caught.value)
                parts.add(len(there))
        assert parts == {1, 2, 3, 4}

    asyncio.run(main())


def test_what_the_bus_refuses_is_refused_whole() -> None:
    """A batch with a message that is too large, or has a bad name, sends nothing, whatever the faults."""

    async def main() -> None:
        for seed in range(20):
            async with injected(1.0, seed, ["publish"]) as faulty:
                producer = await faulty.producer()
                with pytest.raises(TooLargeError):
                    await producer.publish_many([Message("t", b"1"), Message("t", b"x" * (1024**2 + 1))])
                with pytest.raises(bus.BadNameError):
                    await producer.publish_many([Message("t", b"1"), Message("no name", b"1")])
                assert await faulty.inner.topics() == []

    asyncio.run(main())


def test_receive_never_raises_and_delivers_everything() -> None:
    """A connection that breaks while receiving delivers again, with an attempt more; what was lost is not yielded."""

    async def main() -> None:
        async with injected(0.7, 7, ["receive"]) as faulty:
            await publish(faulty, 50)
            consumer = await faulty.consumer("t", "g")
            got: list[Delivery] = []
            while len(got) < 50:
                batch = await consumer.receive(3, timeout=10)
                assert batch
                await consumer.ack(batch)
                got += batch
            assert sorted(int(delivery.body) for delivery in got) == list(range(50))
            assert max(delivery.attempt for delivery in got) > 1
            assert (await faulty.inner.depth("t", "g")).total == 0
            assert await consumer.receive(3, timeout=0.01) == []

    asyncio.run(main())


def test_a_lease_that_is_lost_goes_to_the_next_who_asks() -> None:
    """``extend`` says so, and settling the lost delivery does nothing."""

    async def main() -> None:
        lost_once = False
        for seed in range(20):
            async with injected(1.0, seed, ["extend"]) as faulty:
                await publish(faulty, 2)
                consumer = await faulty.consumer("t", "g")
                held = await consumer.receive(2)
                try:
                    lost = await consumer.extend(held)
                except BusError:
                    continue
                lost_once = True
                await consumer.ack(held)
                again = await consumer.receive(5, timeout=10)
                assert [delivery.body for delivery in again] == [delivery.body for delivery in lost]
        assert lost_once

    asyncio.run(main())


def test_an_atomic_finish_stays_atomic() -> None:
    """Whatever it says, the result is there exactly when the task is acknowledged; calling again mends it."""

    async def main() -> None:
        for seed in range(20):
            async with injected(1.0, seed, ["finish", "ack", "publish"]) as faulty:
                await (await faulty.inner.producer()).publish("t", b"1")
                consumer, producer = await faulty.consumer("t", "g"), await faulty.producer()
                (delivery,) = await consumer.receive()
                with pytest.raises(BusError, match="injected fault: finish"):
                    await consumer.finish([delivery], [Message("done", b"2")], producer)
                acknowledged = (await faulty.inner.depth("t", "g")).total == 0
                assert (len(await faulty.inner.peek("done")) == 1) is acknowledged

    asyncio.run(main())


def test_a_worker_has_one_result_for_each_task() -> None:
    """However often a confirmation gets lost, a result that is published in one step with the ack is there once."""

    async def main() -> None:
        async with rig() as r:
            await r.send(*(Task("t", str(number)) for number in range(50)))
            url = r.url.replace("memory:", "inject+memory:") + "?inject-rate=0.5&inject-seed=7&inject-wait=1ms"
            options = {"bus": f"{url}&inject-operations=finish,receive", "drain": True, "prefetch": 1}
            app = r.app(worker(lambda task, ctx: None), **options)
            assert await app.run() is Exit.OK
            assert app.stats.bus_errors > 0
            done = await r.take(50)
            assert sorted(int(task["task"]) for task in done) == list(range(50))
            assert await r.nothing("done")
            assert (await r.bus.depth("t", "t")).total == 0

    asyncio.run(main())


def test_opening_and_looking_fail_as_they_may() -> None:
    """Opening is unreachable, health says no instead of raising, and closing never fails."""

    async def main() -> None:
        faulty = injected(1.0)
        with pytest.raises(UnreachableError):
            await faulty.open()
        await faulty.inner.open()
        assert (await faulty.health()).ok is False
        for look in (faulty.topics, lambda: faulty.depth("t", "g"), faulty.producer):
            with pytest.raises((UnreachableError, UnconfirmedError)):
                await look()
        await faulty.close()

    asyncio.run(main())


def test_the_seed_and_the_counts_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """In the log, when it is opened and closed, and in the health."""

    async def main() -> Health:
        async with bus.connect("inject+memory:told?inject-seed=42&inject-rate=0.5&inject-operations=publish") as made:
            assert isinstance(made, InjectedBus)
            await publish(made, 20)
            return await made.health()

    with caplog.at_level(logging.WARNING, "taskbus.bus"):
        health = asyncio.run(main())

    opened, closed = caplog.records
    assert (opened.__dict__["event"], opened.__dict__["seed"], opened.__dict__["rate"]) == ("inject", 42, 0.5)
    assert closed.__dict__["event"] == "injected"
    count = sum(value for key, value in closed.__dict__.items() if key.startswith("publish-"))
    assert f"{count} faults injected into 20 operations (seed 42)" in health.detail
    assert count > 0


def test_a_seed_is_drawn_where_none_is_given() -> None:
    """And it is another each time."""
    assert Injector(rate=0.1).seed != Injector(rate=0.1).seed


def test_the_url_has_options_of_both() -> None:
    """The injection's begin with inject-, the others are the bus's own; secrets are masked, the seed is not."""
    made = bus.connect("inject+memory:x?inject-seed=9&lease=5s&inject-wait=1s&inject-rate=0.25&max_size=10B")

    assert isinstance(made, InjectedBus)
    assert (made.injector.seed, made.injector.wait, made.injector.rate) == (9, 1.0, 0.25)
    assert made.capabilities.max_size == 10
    shown = str(bus.parse_url("inject+nats://me:canary@host?token=canary&inject-seed=9"))
    assert shown == "inject+nats://me:***@host?token=***&inject-seed=9"
    assert bus.parse_url("inject+stdio:").adapter == "stdio"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("inject+memory:?inject-rats=1", "no option 'inject-rats'; did you mean 'inject_rate'"),
        ("inject+memory:?inject-rate=2", "write a probability from 0 to 1"),
        ("inject+memory:?inject-rate=nan", "write a probability from 0 to 1"),
        ("inject+memory:?inject-seed=-1", "write a whole number"),
        ("inject+memory:?inject-operations=publish,foo", "'foo' is no operation; known: open"),
        ("inject+inject+memory:", "inject+ is written once"),
        ("inject+:", "no bus has the scheme ''"),
        ("inject+memory:?leas=3", "no option 'leas'"),
    ],
)
def test_bad_urls_say_what_is_wrong(url: str, says: str) -> None:
    """In the words of every other bus URL."""
    with pytest.raises(BusURLError) as caught:
        bus.connect(url)

    assert says in str(caught.value)


@pytest.mark.parametrize("wrong", [{"rate": 1.5}, {"rate": 0.1, "wait": -1.0}, {"rate": 0.1, "operations": ["foo"]}])
def test_bad_arguments_are_refused(wrong: dict[str, object]) -> None:
    """In code as well."""
    with pytest.raises(ValueError, match=r"probability|seconds|no such operation"):
        Injector(**wrong)  # type: ignore[arg-type]
