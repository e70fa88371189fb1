"""The round trips of every bus that is at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.round_trip.measure import RoundTrip, bare_round_trip, worker_round_trip
from tests.servers.kafka import KafkaServer
from tests.servers.nats import NatsServer
from tests.servers.nsq import Nsqd

__all__ = ["round_trips"]


def round_trips(folder: Path, count: int = 500) -> Iterator[tuple[str, RoundTrip, RoundTrip | None] | str]:
    """By bus: through a worker, and with the bare client where there is one; or why there is none."""
    os.environ["TASKBUS_SERVERS"] = "1"
    yield "sqlite", worker_round_trip(f"sqlite:{folder}/trip.db", folder, count), None
    for name, start in (("nats", _nats), ("kafka", _kafka), ("nsq", _nsq)):
        place = folder / f"trip-{name}"
        place.mkdir()
        try:
            with ExitStack() as stack:
                url = start(stack, place)
                bare = bare_round_trip(name, url, place, count)
                yield name, worker_round_trip(url, place, count), bare
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            yield f"{name}: {missing}"


def _nats(stack: ExitStack, folder: Path) -> str:
    return stack.enter_context(NatsServer(folder).running()).url


def _kafka(stack: ExitStack, folder: Path) -> str:
    return stack.enter_context(KafkaServer(folder).running()).url


def _nsq(stack: ExitStack, folder: Path) -> str:
    server = Nsqd(folder)
    server.start()
    stack.callback(server.stop)
    return server.url()
