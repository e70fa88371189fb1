"""A bus for one scenario: its URL, with a short lease, and the server behind it where there is one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

import bus
from bus import BusError
from tests.servers import need_servers
from tests.servers.nats import NatsServer
from tests.servers.nsq import Nsqd
from tests.servers.process import ServerProcess

__all__ = ["BUSES", "LONG", "Stage", "collect", "need_faults", "on", "stage"]

#: Whether the long form was asked for.
LONG = bool(os.environ.get("TASKBUS_FAULTS"))
#: Every bus that several processes share.
BUSES = ("sqlite", "file", "nats", "nsq", "kafka", "pubsub")


class Stage(NamedTuple):
    """One bus. ``lease`` is in seconds: after that long, what a dead worker held comes again."""

    name: str
    url: str
    lease: float
    server: ServerProcess | None


def on(*short: str, long: Sequence[str] = BUSES) -> pytest.MarkDecorator:
    """Have a test run on buses through the fixture ``scene``: ``short`` always, ``long`` in the long form."""
    names = [*short, *(name for name in long if name not in short)]
    return pytest.mark.parametrize("scene", [(name, name in short) for name in names], ids=names, indirect=True)


def need_faults(what: str = "the long form of the fault suite") -> None:
    """Skip, saying why, unless the long form was asked for."""
    if not LONG:
        pytest.skip(f"{what}: run `make faults`")


@contextmanager
def stage(name: str, folder: Path, *arguments: str) -> Iterator[Stage]:
    """The bus called ``name``, with data in ``folder``; ``arguments`` are more for nats-server and nsqd.

    Skips where its server is not asked for or cannot be had.
    """
    if name in ("sqlite", "file"):
        yield Stage(name, f"{name}:{folder}/bus.{name}?lease=500ms", 0.5, None)
        return
    need_servers()
    server, url, lease = _make(name, folder, arguments)
    with server.running():
        yield Stage(name, url, lease, server)


def _make(name: str, folder: Path, arguments: Sequence[str]) -> tuple[ServerProcess, str, float]:
    # With a second, a worker that has to wait for its turn on a busy machine loses leases which it is not meant to.
    if name == "nats":
        nats = NatsServer(folder, *arguments)
        return nats, f"{nats.url}?lease=2s", 2.0
    if name == "nsq":
        nsqd = Nsqd(folder, *arguments)
        return nsqd, nsqd.url(lease="2s"), 2.0
    if name == "kafka":
        pytest.importorskip("confluent_kafka")
        from tests.servers.kafka import KafkaServer

        kafka = KafkaServer(folder)
        return kafka, f"{kafka.url}?partitions=1&session=2s&handover=500ms&stall=2s", 3.0
    pytest.importorskip("google.pubsub_v1")
    from tests.servers.pubsub import PubsubEmulator

    emulator = PubsubEmulator(folder)
    return emulator, f"{emulator.url}&lease=2s", 2.0


def collect(url: str, topic: str, count: int, *, quiet: float = 1.0, limit: float = 60.0) -> list[dict[str, Any]]:
    """What is in a topic, as JSON: all that comes until there are ``count`` and then nothing for ``quiet`` seconds.

    Fails if there are fewer within ``limit``.
    """

    async def take() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        deadline = asyncio.get_running_loop().time() + limit
        async with bus.connect(url) as b, await b.consumer(topic, "collect") as consumer:
            while True:
                left = deadline - asyncio.get_running_loop().time()
                batch = await consumer.receive(1000, timeout=quiet if len(found) >= count else max(0.0, left))
                if not batch:
                    assert len(found) >= count, f"{topic}: {len(found)} of {count} within {limit:g} s"
                    return found
                try:
                    await consumer.ack(batch)
                except BusError:
                    continue
                found += [orjson.loads(delivery.body) for delivery in batch]

    return asyncio.run(take())
