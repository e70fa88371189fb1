"""One task at a time: sent and confirmed, done by another process, its result received and acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import bus
from benchmarks.measure import task_line

__all__ = ["RoundTrip", "bare_round_trip", "measured", "worker_round_trip"]

_ROOT = Path(__file__).parent.parent.parent
#: Round trips that are not counted: connections warm up, and topics and consumers come to be.
_WARM = 30
_LIMIT = 30.0


class RoundTrip(NamedTuple):
    """Milliseconds of half of them, and of all but one in a hundred, at most."""

    p50: float
    p99: float


def worker_round_trip(url: str, folder: Path, count: int) -> RoundTrip:
    """Through a ``noop`` worker, sending and receiving by the bus interface."""
    with _process(["apps.cli.main", "worker", "noop", "--bus", url, "--log-level", "warning"], folder):
        return asyncio.run(_through_bus(url, count))


def bare_round_trip(name: str, url: str, folder: Path, count: int) -> RoundTrip:
    """Through a process that takes the same steps with the bare client of the bus ``name``: nats, kafka, nsq."""
    module = f"benchmarks.round_trip.{name}"
    with _process([module, "answer", url], folder):
        command = [sys.executable, "-m", module, "ask", url, str(count)]
        told = subprocess.run(command, env=_environment(), cwd=folder, check=True, capture_output=True, text=True)
    return RoundTrip(*map(float, told.stdout.split()))


async def measured(trip: Callable[[bytes], Awaitable[None]], count: int) -> RoundTrip:
    """Make ``count`` trips, after some to warm up."""
    times = []
    for number in range(_WARM + count):
        began = time.perf_counter()
        async with asyncio.timeout(_LIMIT):
            await trip(task_line(number))
        times.append((time.perf_counter() - began) * 1000)
    cuts = statistics.quantiles(times[_WARM:], n=100)
    return RoundTrip(cuts[49], cuts[98])


async def _through_bus(url: str, count: int) -> RoundTrip:
    async with bus.connect(url) as b, await b.producer() as producer, await b.consumer("done", "asking") as consumer:

        async def trip(body: bytes) -> None:
            await producer.publish("noop", body)
            await consumer.ack(await consumer.receive(1))

        return await measured(trip, count)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT)}


@contextlib.contextmanager
def _process(arguments: list[str], folder: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=folder, env=_environment())
    try:
        yield
    finally:
        process.terminate()
        process.wait()
