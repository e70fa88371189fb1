"""A sqlite bus on a full disk: nothing half-stored, nothing lost, and on it goes when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import bus
from bus import Message, Producer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def batch_of(number: int) -> list[Message]:
    return [Message("t", b"%d-%d-" % (number, place) + bytes(10_000)) for place in range(10)]


async def until_full(producer: Producer, batches: list[list[Message]]) -> tuple[bus.FullError, list[bytes]]:
    """Publish until there is no room; the error, and the bodies that were confirmed."""
    confirmed: list[bytes] = []
    for batch in batches:
        try:
            await producer.publish_many(batch)
        except bus.FullError as error:
            return error, confirmed
        confirmed += [message.body for message in batch]
    raise AssertionError("the disk was never full")


def test_a_full_disk_refuses_what_it_cannot_keep(small_disk: Path) -> None:
    """Publishing is a FullError, of which nothing is visible; with room again it goes on, and nothing is lost."""

    async def scenario() -> None:
        async with bus.connect(f"sqlite:{small_disk}/work.db") as b:
            producer, consumer = await b.producer(), await b.consumer("t", "g")
            confirmed: list[bytes] = []
            for number in range(10):
                await producer.publish_many(batch_of(number))
                confirmed += [message.body for message in batch_of(number)]
            fill(small_disk / "filler")
            error, stored = await until_full(producer, [batch_of(number) for number in range(10, 1000)])
            assert "no room" in str(error)
            assert error.transient
            confirmed += stored
            assert (await b.depth("t", "g")).total == len(confirmed)
            health = await b.health()
            assert not health.ok
            assert "no room" in health.detail

            (small_disk / "filler").unlink()
            await producer.publish_many(batch_of(5000))
            assert (await b.health()).ok
            confirmed += [message.body for message in batch_of(5000)]
            received: list[bytes] = []
            while batch := await consumer.receive(50, timeout=0):
                received += [delivery.body for delivery in batch]
                await consumer.finish(batch, [Message("done", b"{}") for _ in batch], producer)
            assert received == confirmed

    asyncio.run(scenario())


def test_a_consumer_waits_out_a_full_disk(small_disk: Path) -> None:
    """A receive that cannot note what it takes waits, and brings the messages when there is room."""

    async def scenario() -> None:
        async with bus.connect(f"sqlite:{small_disk}/work.db") as b:
            producer, consumer = await b.producer(), await b.consumer("t", "g")
            await producer.publish("t", b"first")
            fill(small_disk / "filler")
            # What was written in vain leaves room in the log, so it takes many small ones to use that up as well.
            await until_full(producer, [[Message("t", b"more")]] * 100_000)
            receiving = asyncio.create_task(consumer.receive(1))
            done, _ = await asyncio.wait({receiving}, timeout=0.2)
            assert not done
            (small_disk / "filler").unlink()
            assert [delivery.body for delivery in await receiving] == [b"first"]

    asyncio.run(scenario())


def test_a_disk_without_room_for_a_new_database(small_disk: Path) -> None:
    """Opening is a FullError that says so."""
    fill(small_disk / "filler")

    async def scenario() -> None:
        with pytest.raises(bus.FullError, match="no room"):
            async with bus.connect(f"sqlite:{small_disk}/work.db"):
                pass

    asyncio.run(scenario())
