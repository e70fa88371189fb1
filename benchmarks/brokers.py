"""A no-op worker, and publishing, on each real broker that is at hand: each beside a bare loop on the same server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.kafka import kafka_drain, kafka_publish
from benchmarks.measure import Run
from benchmarks.nats import nats_drain, nats_publish
from benchmarks.nsq import nsq_drain, nsq_publish
from benchmarks.pubsub import pubsub_drain, pubsub_publish
from benchmarks.servers import at_hand, new_bus
from tests.servers.pubsub import PubsubEmulator

__all__ = ["Pair", "brokers"]

#: Tasks after which a server of Java is as fast as it will be: whatever is measured before would seem slow.
_REHEARSED = {"kafka": 200_000, "pubsub": 20_000}


class Pair(NamedTuple):
    """One broker: the bare loop's run and the worker's; seconds of bare and of our publishing, where measured."""

    name: str
    bare: Run
    run: Run
    bare_publish: float | None = None
    publish: float | None = None


def brokers(folder: Path, count: int) -> Iterator[Pair | str]:
    """The pairs of each broker, with ``count`` tasks; or why there is none."""
    for name, measure in (("kafka", _kafka), ("nats", _nats), ("nsq", _nsq), ("pubsub", _pubsub)):
        yield from at_hand(folder / name, partial(measure, count))


def _steady(publish: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
    """Of five runs, which take some tenths of a second each, the middle one by its first figure to its last."""
    runs = sorted((publish() for _ in range(5)), key=lambda seconds: seconds[0] / seconds[-1])
    return runs[2]


def _kafka(count: int, stack: ExitStack, folder: Path) -> Iterator[Pair]:
    url = new_bus("kafka", stack, folder)
    kafka_drain(url, folder, _REHEARSED["kafka"])
    plain, equal, run = kafka_drain(url, folder, count)
    usual, best, publish = _steady(lambda: kafka_publish(url, count))
    yield Pair("kafka", equal, run, usual, publish)
    yield Pair("kafka, the least of a bare client", plain, run, best, publish)


def _nats(count: int, stack: ExitStack, folder: Path) -> Iterator[Pair]:
    url = new_bus("nats", stack, folder)
    yield Pair("nats", *nats_drain(url, folder, count), *nats_publish(url, folder, count))


def _nsq(count: int, stack: ExitStack, folder: Path) -> Iterator[Pair]:
    client, bare, run = nsq_drain(folder, count)
    client_publish, bare_publish, publish = _steady(lambda: nsq_publish(folder, count))
    yield Pair("nsq", client, run, client_publish, publish)
    yield Pair("nsq, our own transport bare", bare, run, bare_publish, publish)


def _pubsub(count: int, stack: ExitStack, folder: Path) -> Iterator[Pair]:
    address = stack.enter_context(PubsubEmulator(folder).running()).address
    pubsub_drain(address, folder, _REHEARSED["pubsub"])
    yield Pair("pubsub (emulator)", *pubsub_drain(address, folder, count), *pubsub_publish(address, count))
