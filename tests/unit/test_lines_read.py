"""Reading files and pipes to their end."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from pathlib import Path

import pytest

import bus
from bus.lines.consumer import LinesConsumer


def lines(path: Path | str, **options: str) -> bus.Bus:
    """The bus on ``path``."""
    return bus.connect(bus.BusURL("lines", str(path), options=options))


async def open_input(b: bus.Bus) -> LinesConsumer:
    """A consumer of it."""
    consumer = await b.consumer("hello", "g")
    assert isinstance(consumer, LinesConsumer)
    return consumer


async def drain(consumer: bus.Consumer, limit: int = 10) -> list[bytes]:
    """Receive and acknowledge to the end."""
    out: list[bytes] = []
    while batch := await consumer.receive(limit):
        assert len(batch) <= limit
        out += [delivery.body for delivery in batch]
        await consumer.ack(batch)
    return out


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    """Every line in order, none twice, and then the input has ended."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(b'{"n":%d}\n' % n for n in range(20_000)))

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            assert not consumer.ended

            assert await drain(consumer, 500) == [b'{"n":%d}' % n for n in range(20_000)]
            assert consumer.ended
            assert await consumer.receive() == []

    asyncio.run(scenario())


def test_position_and_size_tell_how_far_it_is(tmp_path: Path) -> None:
    """Bytes yielded, of bytes in all."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"0123456789\n" * 10)

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            assert (consumer.position, consumer.size) == (0, 110)
            await consumer.receive(3)
            assert consumer.position == 33
            await consumer.receive(10)
            assert (consumer.position, consumer.size) == (110, 110)

    asyncio.run(scenario())


def test_the_end_waits_for_what_was_yielded(tmp_path: Path) -> None:
    """Input ends only when everything yielded was settled, and a nacked line comes back with its history."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"a\nb")

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            first = await consumer.receive(2)
            if len(first) == 1:
                first += await consumer.receive()
            assert [d.id for d in first] == ["line-1", "line-2"]
            assert await consumer.receive(timeout=0.05) == []
            assert not consumer.ended

            waiting = asyncio.create_task(consumer.receive(5))
            await asyncio.sleep(0)
            await consumer.nack(first[:1], reason="not today")
            (again,) = await waiting
            assert (again.body, again.id, again.attempt, again.history) == (b"a", "line-1", 2, ("not today",))

            waiting = asyncio.create_task(consumer.receive(5))
            await consumer.ack([again])
            await consumer.ack(first)
            assert await waiting == []
            assert consumer.ended

    asyncio.run(scenario())


def test_first_settlement_wins(tmp_path: Path) -> None:
    """An ack after a nack does nothing, nor a nack after an ack."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"a\nb\n")

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            one, two = await consumer.receive(2)
            await consumer.ack([one])
            await consumer.nack([one])
            await consumer.release([two])
            await consumer.ack([two])

            (again,) = await consumer.receive(5)
            assert (again.body, again.attempt) == (b"b", 1)
            await consumer.ack([again])
            assert await consumer.receive() == []
            assert consumer.ended

    asyncio.run(scenario())


def test_released_lines_keep_their_order(tmp_path: Path) -> None:
    """What is handed back unbegun comes again first and in the order of the file."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"a\nb\nc\nd\n")

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            batch = await consumer.receive(3)
            await consumer.release(batch[2:])
            await consumer.release(batch[:2])

            assert await drain(consumer) == [b"a", b"b", b"c", b"d"]

    asyncio.run(scenario())


def test_a_delay_is_kept_by_the_given_clock(tmp_path: Path) -> None:
    """A delayed nack comes back when the clock says so, also if the clock is moved while receive waits."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"a\n")
    now = 1000.0

    async def scenario() -> None:
        nonlocal now
        async with bus.connect(bus.BusURL("lines", str(path)), clock=lambda: now) as b:
            consumer = await open_input(b)
            await consumer.nack(await consumer.receive(), delay=60.0)
            waiting = asyncio.create_task(consumer.receive())
            assert await asyncio.wait([waiting], timeout=0.1) == (set(), {waiting})
            now += 60.0

            assert [d.attempt for d in await asyncio.wait_for(waiting, 5)] == [2]

    asyncio.run(scenario())


def test_cancelling_receive_loses_nothing(tmp_path: Path) -> None:
    """A receive cancelled at any moment leaves its lines for the next one."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(100)))

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            for turns in range(5):
                task = asyncio.create_task(consumer.receive(1))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                if isinstance(outcome, list):
                    await consumer.release(outcome)

            assert await drain(consumer) == [b"%d" % n for n in range(100)]

    asyncio.run(scenario())


def test_long_lines_and_memory(tmp_path: Path) -> None:
    """A 20 MB line is one delivery; over max_line it comes in pieces that join to the whole."""
    path = tmp_path / "in.jsonl"
    long = b"x" * 20_000_000
    path.write_bytes(b"a\n" + long + b"\nb\n")

    async def scenario() -> None:
        async with lines(path) as b:
            assert await drain(await open_input(b)) == [b"a", long, b"b"]
        async with lines(path, max_line="6MB") as b:
            pieces = await drain(await open_input(b))
            assert max(map(len, pieces)) == 6_000_000
            assert b"".join(pieces) == b"a" + long + b"b"

    asyncio.run(scenario())


def test_reading_holds_a_bounded_part_of_a_large_file(tmp_path: Path) -> None:
    """Reading 200 MB line by line does not take 200 MB."""
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        for _ in range(200):
            file.write((b"x" * 999 + b"\n") * 1000)

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            while batch := await consumer.receive(500):
                await consumer.ack(batch)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(scenario())

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB on Linux


def test_a_pipe_yields_as_lines_come(tmp_path: Path) -> None:
    """One line is yielded at once though more were asked for, an unfinished one only when the writer is done."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            assert consumer.size is None
            writer = os.open(path, os.O_WRONLY)
            os.write(writer, b"a\nunfin")
            assert [d.body for d in await consumer.receive(10, timeout=5)] == [b"a"]
            assert await consumer.receive(10, timeout=0.05) == []
            os.write(writer, b"ished")
            os.close(writer)
            (last,) = await consumer.receive(10, timeout=5)
            assert (last.body, last.id) == (b"unfinished", "line-2")

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_close_ends_a_waiting_receive(tmp_path: Path, kind: str) -> None:
    """Close at any moment, twice: receive returns empty at once and no descriptor is left open."""
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"a\n")

    async def scenario() -> None:
        writer = os.open(path, os.O_RDWR)
        before = len(os.listdir("/dev/fd"))
        b = lines(path)
        consumer = await open_input(b)
        if kind == "file":
            await consumer.receive()
        waiting = asyncio.create_task(consumer.receive())
        await asyncio.sleep(0)

        await consumer.close()
        await b.close()

        assert await asyncio.wait_for(waiting, 5) == []
        assert consumer.ended
        assert await consumer.receive() == []
        assert len(os.listdir("/dev/fd")) == before
        os.close(writer)
        with pytest.raises(bus.ClosedError):
            await b.consumer("hello", "g")

    asyncio.run(scenario())


def test_a_pipe_has_one_consumer_and_a_file_many(tmp_path: Path) -> None:
    """Two groups each read the whole of a file; a pipe can be read once and says so."""
    path, pipe = tmp_path / "in.jsonl", tmp_path / "pipe"
    path.write_bytes(b"a\nb\n")
    os.mkfifo(pipe)

    async def scenario() -> None:
        async with lines(path) as b:
            one, two = await b.consumer("hello", "g1"), await b.consumer("hello", "g2")
            assert await drain(one) == await drain(two) == [b"a", b"b"]
            with pytest.raises(bus.UnsupportedError):
                await b.consumer("hello", None)
        async with lines(pipe) as b:
            await b.consumer("hello", "g")
            with pytest.raises(bus.UnsupportedError, match="one consumer"):
                await b.consumer("hello", "g")

    asyncio.run(scenario())


def test_inputs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A missing file, a directory, a device: an error that names the path and what is wrong."""
    cases = [
        (str(tmp_path / "none.jsonl"), "does not exist"),
        (str(tmp_path), "directory"),
        (f"{tmp_path}/none/x", "does not exist"),
        ("/dev/zero", "device"),
        ("/dev/stdout", "standard input"),
        ("/dev/fd/999", "closed"),
    ]

    async def scenario() -> None:
        for path, text in cases:
            async with lines(path) as b:
                with pytest.raises(bus.BusURLError, match=text):
                    await b.consumer("hello", "g")

    asyncio.run(scenario())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_unauthorised(tmp_path: Path) -> None:
    """Missing permission is told as such."""
    path = tmp_path / "in.jsonl"
    path.touch(0)

    async def scenario() -> None:
        async with lines(path) as b:
            with pytest.raises(bus.UnauthorisedError, match=r"in\.jsonl"):
                await b.consumer("hello", "g")

    asyncio.run(scenario())


def test_dev_null_has_ended() -> None:
    """The empty input ends at once."""

    async def scenario() -> None:
        async with lines("/dev/null") as b:
            assert await drain(await open_input(b)) == []

    asyncio.run(scenario())


def test_a_fast_writer_does_not_fill_the_memory(tmp_path: Path) -> None:
    """A pipe is read as lines are asked for: an idle reader leaves the writer waiting."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    written = 0

    def write() -> None:
        nonlocal written
        fd = os.open(path, os.O_WRONLY)
        try:
            for _ in range(5000):
                written += os.write(fd, b"x" * 999 + b"\n")
        except BrokenPipeError:
            pass
        os.close(fd)

    async def scenario() -> None:
        async with lines(path) as b:
            consumer = await open_input(b)
            writer = threading.Thread(target=write)
            writer.start()
            await consumer.receive(1)
            for _ in range(100):
                await asyncio.sleep(0)
            assert written < 2_000_000
        await asyncio.to_thread(writer.join)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("lines:", "needs a path"),
        ("lines://host/x", "not a host"),
        ("stdio:x", "lines:x"),
        ("lines:x?max_line=0", "at least"),
        ("lines:x?max-lines=1", "max_line"),
        ("lines:a%00b", "NUL"),
    ],
)
def test_wrong_urls_say_what_to_write(url: str, text: str) -> None:
    """A URL that means nothing is refused when it is given."""
    with pytest.raises(bus.BusURLError, match=text):
        bus.connect(url)


def test_capabilities_follow_what_the_path_is(tmp_path: Path) -> None:
    """A file is durable and can be read again, a pipe neither; without fsync a file survives a kill only."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "in.jsonl").touch()

    file, unsynced, pipe = (
        lines(tmp_path / "in.jsonl").capabilities,
        lines(tmp_path / "in.jsonl", sync="false").capabilities,
        lines(tmp_path / "pipe").capabilities,
    )

    assert (file.durability, file.replay, file.finite) == (bus.Durability.D3, True, True)
    assert unsynced.durability == bus.Durability.D2
    assert (pipe.durability, pipe.replay, pipe.retained, pipe.finite) == (bus.Durability.D0, False, False, True)
