"""A no-op worker, and publishing, on each real broker that is at hand: each beside a bare loop on the same server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.kafka import kafka_drain, kafka_publish
from benchmarks.measure import Run
from benchmarks.nats import nats_drain, nats_publish
from benchmarks.nsq import nsq_drain, nsq_publish
from benchmarks.pubsub import pubsub_drain, pubsub_publish
from tests.servers.kafka import KafkaServer
from tests.servers.nats import NatsServer
from tests.servers.pubsub import PubsubEmulator

__all__ = ["Pair", "brokers"]


class Pair(NamedTuple):
    """One broker: the bare loop's run and the worker's; seconds of bare and of our publishing, where measured."""

    name: str
    bare: Run
    run: Run
    bare_publish: float | None = None
    publish: float | None = None


def brokers(folder: Path, count: int) -> Iterator[Pair | str]:
    """The pairs of each broker, with ``count`` tasks; or why there is none."""
    os.environ["TASKBUS_SERVERS"] = "1"
    for name, measure in (("kafka", _kafka), ("nats", _nats), ("nsq", _nsq), ("pubsub", _pubsub)):
        place = folder / name
        place.mkdir()
        try:
            with ExitStack() as stack:
                yield from measure(stack, place, count)
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            yield f"{name}: {missing}"


def _kafka(stack: ExitStack, folder: Path, count: int) -> Iterator[Pair]:
    url = stack.enter_context(KafkaServer(folder).running()).url
    plain, equal, run = kafka_drain(url, folder, count)
    yield Pair("kafka", equal, run, *kafka_publish(url, count))
    yield Pair("kafka, at least once bare", plain, run)


def _nats(stack: ExitStack, folder: Path, count: int) -> Iterator[Pair]:
    url = stack.enter_context(NatsServer(folder).running()).url
    yield Pair("nats", *nats_drain(url, folder, count), *nats_publish(url, folder, count))


def _nsq(stack: ExitStack, folder: Path, count: int) -> Iterator[Pair]:
    client, bare, run = nsq_drain(folder, count)
    yield Pair("nsq", client, run, *nsq_publish(folder, count))
    yield Pair("nsq, our own transport bare", bare, run)


def _pubsub(stack: ExitStack, folder: Path, count: int) -> Iterator[Pair]:
    address = stack.enter_context(PubsubEmulator(folder).running()).address
    yield Pair("pubsub (emulator)", *pubsub_drain(address, folder, count), *pubsub_publish(address, count))
