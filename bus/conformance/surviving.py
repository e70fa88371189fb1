"""Processes that die and servers that restart: what was confirmed is there, what was in flight comes again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from bus.capabilities import Durability
from bus.conformance.bench import Bench, bodies, case
from bus.contract import Delivery

__all__ = ["SurvivingTests"]

#: Publishes and is killed as soon as that was confirmed, with no chance to flush or close anything.
_PUBLISH = """
import asyncio, os, signal, sys
from bus import Message, connect
async def main(url, topic):
    async with connect(url) as bus:
        producer = await bus.producer()
        await producer.publish_many([Message(topic, b'{"n":%d}' % n) for n in range(19)])
        await producer.publish(topic, b'{"n":19}')
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(*sys.argv[1:]))
"""
#: Receives five, acknowledges the first two, says how long its lease is, and is killed.
_RECEIVE = """
import asyncio, os, signal, sys
from bus import connect
async def main(url, topic):
    async with connect(url) as bus:
        consumer = await bus.consumer(topic, "g")
        taken = []
        while len(taken) < 5:
            taken += await consumer.receive(5 - len(taken))
        await consumer.ack(taken[:2])
        print(consumer.lease or 0, *(delivery.body.decode() for delivery in taken[:2]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(*sys.argv[1:]))
"""


class SurvivingTests:
    """C02, kills and restarts."""

    @case("processes")
    async def test_c02_a_confirmed_publish_survives_its_process(self, bench: Bench) -> None:
        """Messages of a process killed with SIGKILL right after ``publish`` returned are all there, once."""
        consumer = None if bench.caps.retained else await bench.consumer()
        await _killed(bench, _PUBLISH)
        await bench.drain(consumer or await bench.consumer(), bodies(20))

    @case(lacks=["processes", "finite"])
    async def test_without_processes_each_has_its_own(self, bench: Bench) -> None:
        """Without ``processes`` what another process publishes does not arrive here."""
        consumer = await bench.consumer()
        await _killed(bench, _PUBLISH)
        await bench.nothing(consumer)

    @case("processes", "lease", lacks=["finite"])
    async def test_f07_a_killed_consumer_loses_nothing(self, bench: Bench) -> None:
        """What a process held when it was killed comes again, as a second attempt; what it acknowledged does not."""
        await (await bench.feed(bodies(8))).close()
        lease, *acked = (await _killed(bench, _RECEIVE)).split()
        if bench.target.clock:
            bench.target.clock.advance(float(lease) + 1.0)
        left = [body for body in bodies(8) if body.decode() not in acked]
        got = await bench.drain(await bench.consumer(), left)
        if bench.caps.attempts:
            assert sorted(delivery.attempt for delivery in got) == [1, 1, 1, 2, 2, 2]

    @case("durability")
    async def test_d1_confirmed_messages_survive_a_clean_restart(self, bench: Bench) -> None:
        """From D1 on, what was confirmed is there after every connection closed and the server restarted."""
        got = await _survives(bench, bench.target.restart)
        if bench.caps.attempts and not bench.caps.finite:
            assert sum(delivery.attempt == 2 for delivery in got) == 10

    @case("durability")
    async def test_d2_confirmed_messages_survive_a_kill(self, bench: Bench) -> None:
        """From D2 on, what was confirmed is there after the server was killed, if perhaps with an attempt forgotten."""
        if bench.caps.durability < Durability.D2 or bench.target.kill is None:
            pytest.skip(f"durability is {bench.caps.durability.name}, the target has no server to kill (C02 kills us)")
        await _survives(bench, bench.target.kill)


async def _survives(bench: Bench, happen: Callable[[], None] | None) -> list[Delivery]:
    consumer = await bench.feed(bodies(100))
    expected = bodies(100)
    if not bench.caps.finite:
        taken = await bench.take(consumer, 20)
        await consumer.ack(taken[:10])
        await consumer.nack(taken[10:])
        expected = [body for body in bodies(100) if body not in {delivery.body for delivery in taken[:10]}]
    await consumer.close()
    await bench.bus.close()
    if happen is not None:
        await asyncio.to_thread(happen)
    again = await bench.connect()
    return await bench.drain(await bench.consumer(bus=again), expected)


async def _killed(bench: Bench, script: str) -> str:
    """Run ``script`` on the bench's topic; it kills itself. Returns what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, bench.target.url, bench.topic],
        capture_output=True,
        text=True,
        timeout=bench.target.limit / 2,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, f"the other process failed: {done.stderr[-2000:]}"
    if bench.target.clock:
        bench.target.clock.catch_up()
    return done.stdout
