"""A file bus on a full disk: nothing half-written, nothing lost, and on it goes when there is room."""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bus
from bus import Message


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A disk that is full after ``size`` bytes of any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_batch_over_several_topics_is_there_wholly_or_not(tmp_path: Path) -> None:
    """When the second topic of a publish has no room nothing of the first is there either."""
    messages = [Message("a", b"1" * 50), Message("b", b"2" * 900)]

    async def scenario() -> None:
        async with bus.connect(f"file:{tmp_path}") as b:
            producer = await b.producer()
            await producer.publish_many([Message("a", b"first"), Message("b", b"first")])
            with file_size_limit(500), pytest.raises(bus.FullError) as error:
                await producer.publish_many(messages)
            assert error.value.transient
            assert [(tmp_path / f"{topic}.jsonl").read_bytes() for topic in "ab"] == [b"first\n"] * 2
            await producer.publish_many(messages)
            assert (tmp_path / "a.jsonl").read_bytes() == b"first\n" + b"1" * 50 + b"\n"

    asyncio.run(scenario())


@pytest.mark.parametrize("restarted", [False, True])
def test_a_finish_without_room_settles_nothing(tmp_path: Path, restarted: bool) -> None:
    """A failed finish neither publishes nor acknowledges, for this process and for the next one; then it succeeds."""
    big = Message("done", b"x" * 3000)

    async def scenario() -> None:
        async with bus.connect(f"file:{tmp_path}") as b:
            producer, consumer = await b.producer(), await b.consumer("t", "g")
            await producer.publish_many([Message("t", b"1"), Message("t", b"2"), Message("done", b"0" * 5000)])
            batch = await consumer.receive(2)
            with file_size_limit(7000), pytest.raises(bus.FullError):
                await consumer.finish(batch[:1], [big], producer)
            assert (tmp_path / "done.jsonl").stat().st_size == 5001
            assert (await b.depth("t", "g")).in_flight == 2
            if restarted:
                await consumer.release(batch)
            else:
                await consumer.finish(batch[:1], [big], producer)
                await consumer.release(batch[1:])
        async with bus.connect(f"file:{tmp_path}") as b:
            left = await (await b.consumer("t", "g")).receive(5)
            assert [d.body for d in left] == ([b"1", b"2"] if restarted else [b"2"])
            assert (await b.depth("done", "x")).ready == (1 if restarted else 2)

    asyncio.run(scenario())


def test_a_failed_finish_is_not_resent_by_another_process(tmp_path: Path) -> None:
    """What is known not to have been published stays unpublished when the state is read by somebody else."""

    async def scenario() -> None:
        async with bus.connect(f"file:{tmp_path}") as b, bus.connect(f"file:{tmp_path}") as other:
            producer, consumer = await b.producer(), await b.consumer("t", "g")
            await producer.publish_many([Message("t", b"1"), Message("done", b"0" * 5000)])
            batch = await consumer.receive()
            with file_size_limit(7000), pytest.raises(bus.FullError):
                await consumer.finish(batch, [Message("done", b"x" * 3000)], producer)

            assert await (await other.consumer("t", "g")).receive(timeout=0.1) == []
            assert (await b.depth("done", "x")).ready == 1
            await consumer.nack(batch)
            assert [d.attempt for d in await (await other.consumer("t", "g")).receive(timeout=5)] == [2]

    asyncio.run(scenario())


def test_a_full_disk_is_waited_for(small_disk: Path) -> None:
    """Publishing, settling and receiving fail or wait while there is no room, say so, and go on afterwards."""
    filler = small_disk / "filler"

    async def scenario() -> None:
        async with bus.connect(f"file:{small_disk}/bus") as b:
            producer, consumer = await b.producer(), await b.consumer("t", "g")
            await producer.publish_many([Message("t", b"%d" % n * 100) for n in range(10)])
            batch = await consumer.receive(5)
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(b"x" * 1_000_000)

            waiting = asyncio.create_task(consumer.receive(5))
            with pytest.raises(bus.FullError):
                await producer.publish("t", b"y" * 8000)
            with pytest.raises(bus.FullError):
                await consumer.ack(batch)
            with pytest.raises(bus.FullError):
                await consumer.finish(batch, [Message("done", b"{}")], producer)
            assert not waiting.done()
            health = await b.health()
            assert not health.ok
            assert "make room" in health.detail

            filler.unlink()
            assert len(await asyncio.wait_for(waiting, 10)) == 5
            await consumer.finish(batch, [Message("done", b"{}")], producer)
            assert (await b.depth("t", "g")) == bus.Depth(0, 0, 5)
            assert (await b.depth("done", "x")).ready == 1
            assert (await b.health()).ok
            await producer.publish("t", b"y" * 8000)

    asyncio.run(scenario())
