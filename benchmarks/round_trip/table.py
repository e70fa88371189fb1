"""The round trips of every bus that is at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.round_trip.measure import RoundTrip, bare_round_trip, worker_round_trip
from benchmarks.servers import at_hand, new_bus

__all__ = ["round_trips"]

_REHEARSAL = 3000
_Found = tuple[str, RoundTrip, RoundTrip | None]


def round_trips(folder: Path, count: int = 500) -> Iterator[_Found | str]:
    """By bus: through a worker, and with the bare client where there is one; or why there is none."""
    yield "sqlite", worker_round_trip(f"sqlite:{folder}/trip.db", folder, count), None
    for name in ("nats", "kafka", "nsq"):
        yield from at_hand(folder / name, partial(_both, name, count))


def _both(name: str, count: int, stack: ExitStack, folder: Path) -> Iterator[_Found]:
    url = new_bus(name, stack, folder)
    # A server of Java takes three times as long until it has done this some thousand times.
    bare_round_trip(name, url, folder, _REHEARSAL if name == "kafka" else 100)
    bare = bare_round_trip(name, url, folder, count)
    yield name, worker_round_trip(url, folder, count), bare
