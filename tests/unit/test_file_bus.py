"""The file bus as people meet it: files they can read, append to, rotate and break."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import bus
from bus import Message
from bus.file.layout import locked
from bus.lines.append import sync_file
from tests.helpers import await_until


def connect(root: Path, **options: str) -> bus.Bus:
    """The bus in ``root``."""
    return bus.connect(bus.BusURL("file", str(root), options=options))


async def take(consumer: bus.Consumer, count: int) -> list[bus.Delivery]:
    """Receive exactly ``count``, and see that no more come."""
    taken: list[bus.Delivery] = []
    while len(taken) < count and (batch := await consumer.receive(100, timeout=10)):
        taken += batch
    assert len(taken) == count
    assert await consumer.receive(timeout=0.1) == []
    return taken


def test_people_can_read_and_append(tmp_path: Path) -> None:
    """A topic is a file of lines; what somebody appends to it is received within a moment."""
    path = tmp_path / "hello-world.jsonl"

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            consumer = await b.consumer("hello-world", "g")
            await (await b.producer()).publish("hello-world", b'{"n":1}')
            assert path.read_bytes() == b'{"n":1}\n'
            assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0
            await consumer.ack(await take(consumer, 1))

            waiting = asyncio.create_task(consumer.receive(timeout=10))
            await asyncio.sleep(0)
            with path.open("ab") as file:
                file.write(b'{"n":2}\n')
            (second,) = await waiting
            assert (second.body, second.id) == (b'{"n":2}', "8")

    asyncio.run(scenario())


def test_a_line_is_received_when_it_is_complete(tmp_path: Path) -> None:
    """A line without its newline is not there yet; a BOM, CRLF and blank lines are dropped."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf1\r\n\r\n \n2\n3")

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            consumer = await b.consumer("t", "g")
            assert [d.body for d in await take(consumer, 2)] == [b"1", b"2"]
            with path.open("ab") as file:
                file.write(b"3\n4\n")
            assert [d.body for d in await take(consumer, 2)] == [b"33", b"4"]

    asyncio.run(scenario())


def test_a_publish_after_a_torn_line_stays_whole(tmp_path: Path) -> None:
    """Somebody's fragment becomes one bad line; what is published after it is intact."""
    (tmp_path / "t.jsonl").write_bytes(b'{"torn')

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            await (await b.producer()).publish_many([Message("t", b"1"), Message("t", b"2")])
            consumer = await b.consumer("t", "g")
            assert [d.body for d in await take(consumer, 3)] == [b'{"torn', b"1", b"2"]

    asyncio.run(scenario())


def test_appending_by_hand_and_by_bus_at_once(tmp_path: Path) -> None:
    """Plain appends, another bus's and ours: every line whole, none lost."""

    def by_hand() -> None:
        for n in range(200):
            with (tmp_path / "t.jsonl").open("ab") as file:
                file.write(b'{"hand":%d}\n' % n)

    async def scenario() -> None:
        async with connect(tmp_path) as one, connect(tmp_path) as two:
            writer = threading.Thread(target=by_hand)
            writer.start()
            producers = [await one.producer(), await two.producer()]
            await asyncio.gather(
                *(p.publish("t", b'{"bus%d":%d}' % (k, n)) for n in range(100) for k, p in enumerate(producers))
            )
            await asyncio.to_thread(writer.join)
            found = [d.body for d in await take(await one.consumer("t", "g"), 400)]
            expected = [b'{"hand":%d}' % n for n in range(200)]
            expected += [b'{"bus%d":%d}' % (k, n) for n in range(100) for k in range(2)]
            assert Counter(found) == Counter(expected)

    asyncio.run(scenario())


def test_long_lines_come_in_pieces_when_they_are_complete(tmp_path: Path) -> None:
    """A line over the size limit is not swallowed, is not held whole, and does not stop what comes after it."""
    line = bytes(range(97, 123)) * 100
    (tmp_path / "t.jsonl").write_bytes(b"1\n" + line)

    async def scenario() -> None:
        async with connect(tmp_path, max_size="1000") as b:
            consumer = await b.consumer("t", "g")
            assert [d.body for d in await take(consumer, 1)] == [b"1"]
            with (tmp_path / "t.jsonl").open("ab") as file:
                file.write(b"\r\n2\n")
            got = await take(consumer, 4)
            assert [len(d.body) for d in got] == [1000, 1000, 600, 1]
            assert b"".join(d.body for d in got) == line + b"2"
            await consumer.nack(got)
            assert [d.body for d in await take(consumer, 4)] == [d.body for d in got]

    asyncio.run(scenario())


def test_pieces_taken_one_by_one_are_the_same(tmp_path: Path) -> None:
    """A long line is cut at the same places however few messages are asked for."""
    (tmp_path / "t.jsonl").write_bytes(b"x" * 700_000 + b"y" * 100 + b"\n2\n")

    async def scenario() -> None:
        async with connect(tmp_path, max_size="300000") as b:
            consumer = await b.consumer("t", "g")
            bodies = [(await consumer.receive(1, timeout=5))[0].body for _ in range(4)]
            assert bodies == [b"x" * 300_000, b"x" * 300_000, b"x" * 100_000 + b"y" * 100, b"2"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "replace",
    [
        pytest.param(lambda path: path.write_bytes(b"5\n"), id="truncated"),
        pytest.param(lambda path: path.write_bytes(b"5\n6\n7\n8\n9\n"), id="truncated and already longer"),
        pytest.param(lambda path: (path.rename(f"{path}.old"), path.write_bytes(b"1\n2\n3\n")), id="same text"),
        pytest.param(lambda path: (path.unlink(), path.write_bytes(b"1\n2\n3\n")), id="removed and made again"),
    ],
)
def test_a_replaced_file_is_read_from_its_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, replace: Callable[[Path], object]
) -> None:
    """Whatever was put in the place of the file is received whole, with a warning."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"1\n2\n3\n")

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            consumer = await b.consumer("t", "g")
            one, *rest = await take(consumer, 3)
            await consumer.ack(rest)
            replace(path)
            expected = path.read_bytes().split()
            assert [d.body for d in await take(consumer, len(expected))] == expected
            with pytest.raises(bus.LeaseLostError):
                await consumer.ack([one])

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert "read from its start, and 1 unsettled" in caplog.text


def test_a_corrupt_state_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """A state that cannot be read back never starts the group over silently."""
    (tmp_path / "t.jsonl").write_bytes(b"1\n")
    state = tmp_path / ".groups" / "t" / "g.json"
    whole = b""

    async def scenario(spoilt: bytes | None) -> None:
        nonlocal whole
        async with connect(tmp_path) as b:
            if spoilt is None:
                consumer = await b.consumer("t", "g")
                await take(consumer, 1)
                whole = state.read_bytes()
                state.with_suffix(".tmp").write_bytes(b"{")
                state.with_suffix(".tmp").replace(state)
                with pytest.raises(bus.CorruptError, match="move it away"):
                    await consumer.receive(timeout=5)
            else:
                state.write_bytes(spoilt)
                with pytest.raises(bus.CorruptError, match="move it away"):
                    await b.consumer("t", "g")
                with pytest.raises(bus.CorruptError, match="move it away"):
                    await b.depth("t", "g")

    asyncio.run(scenario(None))
    for spoilt in (b"", b"\0" * 100, whole[:-1], b"[]\n", b"{}\n", whole.replace(b'"v":1', b'"v":2')):
        asyncio.run(scenario(spoilt))


def test_state_removed_under_a_worker_starts_the_group_again(tmp_path: Path) -> None:
    """Removing .groups while a worker runs is the way to have everything again, and breaks nothing."""
    (tmp_path / "t.jsonl").write_bytes(b"1\n2\n")

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            consumer = await b.consumer("t", "g")
            await consumer.ack(await take(consumer, 2))
            for path in sorted((tmp_path / ".groups").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            assert [d.body for d in await take(consumer, 2)] == [b"1", b"2"]

    asyncio.run(scenario())


def test_state_holds_only_what_is_unsettled(tmp_path: Path) -> None:
    """After 5,000 messages the state of a group is as small as at the start."""

    async def scenario() -> None:
        async with connect(tmp_path, sync="false") as b:
            producer, consumer = await b.producer(), await b.consumer("t", "g")
            await producer.publish_many([Message("t", b"%d" % n) for n in range(5000)])
            for _ in range(50):
                batch = await consumer.receive(100)
                await consumer.nack(batch[:5], delay=3600, reason="later")
                await consumer.finish(batch[5:], [Message("done", d.body) for d in batch[5:]], producer)
            assert await b.depth("t", "g") == bus.Depth(0, 250, 0)
            await consumer.ack([])

    asyncio.run(scenario())
    size = (tmp_path / ".groups" / "t" / "g.json").stat().st_size
    assert size < 250 * 100


def test_links_and_directories_in_the_place_of_a_topic_are_refused(tmp_path: Path) -> None:
    """Nothing outside the directory is read or written through it."""
    outside = tmp_path / "outside"
    root = tmp_path / "bus"
    root.mkdir()
    (root / "link.jsonl").symlink_to(outside)
    (root / "dir.jsonl").mkdir()

    async def scenario() -> None:
        async with connect(root) as b:
            producer = await b.producer()
            for topic, text in (("link", "symbolic link"), ("dir", "directory")):
                with pytest.raises(bus.BusURLError, match=text):
                    await producer.publish(topic, b"{}")
            consumer = await b.consumer("link", "g")
            with pytest.raises(bus.BusURLError, match="symbolic link"):
                await consumer.receive(timeout=5)
            assert not (await b.health()).ok

    asyncio.run(scenario())
    assert not outside.exists()


def test_roots_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """A file in the place of the directory is named, and a URL without one refused."""
    (tmp_path / "file").touch()

    async def scenario() -> None:
        with pytest.raises(bus.BusURLError, match="lines:"):
            await connect(tmp_path / "file").open()
        with pytest.raises(bus.BusURLError):
            await connect(tmp_path / "file" / "below").open()

    asyncio.run(scenario())
    for url in ("file:", "file://host/x", "file:a%00b", "file:x?lease=0", "file:x?leese=1s"):
        with pytest.raises(bus.BusURLError):
            bus.connect(url)


def test_a_confirmed_publish_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced, at its full length, before publish returns; with sync=false it is not."""
    synced: list[int] = []

    def record(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        sync_file(fd)

    monkeypatch.setattr("bus.file.appending.sync_file", record)

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            await (await b.producer()).publish_many([Message("t", b"12345"), Message("u", b"123")])
            assert synced == [6, 4]
        async with connect(tmp_path, sync="false") as b:
            await (await b.producer()).publish("t", b"12345")
            assert b.capabilities.durability == bus.Durability.D2
        assert synced == [6, 4]

    asyncio.run(scenario())


def test_concurrent_publishes_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred coroutines publishing at once cost a few syncs, not a hundred."""
    synced: list[int] = []
    monkeypatch.setattr("bus.file.appending.sync_file", synced.append)

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            producer = await b.producer()
            await asyncio.gather(*(producer.publish("t", b"%d" % n) for n in range(100)))

    asyncio.run(scenario())
    assert len(synced) <= 3


def test_a_directory_of_another_working_directory_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is taken when the bus is made: changing the directory afterwards changes nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()

    async def scenario() -> None:
        async with bus.connect("file:./tasks") as b:
            os.chdir(tmp_path / "other")
            await (await b.producer()).publish("t", b"{}")

    asyncio.run(scenario())
    assert (tmp_path / "tasks" / "t.jsonl").read_bytes() == b"{}\n"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """A closed bus has closed its files and ended its thread."""

    async def scenario() -> None:
        for _ in range(3):
            async with connect(tmp_path) as b:
                producer, consumer = await b.producer(), await b.consumer("t", "g")
                await b.consumer("t", None)
                await producer.publish("t", b"{}")
                await consumer.finish(await consumer.receive(), [Message("done", b"{}")], producer)

    before = len(os.listdir("/dev/fd")), threading.active_count()
    asyncio.run(scenario())

    assert (len(os.listdir("/dev/fd")), threading.active_count()) == before


def test_everybody_locks_topics_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing to topics in whatever order locks them in the order of their names: nobody waits in a circle."""
    order: list[str] = []

    def record(path: str, flags: int) -> AbstractContextManager[int]:
        order.append(Path(path).stem)
        return locked(path, flags)

    monkeypatch.setattr("bus.file.appending.locked", record)

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            await (await b.producer()).publish_many([Message(topic, b"{}") for topic in "cab"])

    asyncio.run(scenario())
    assert order == ["a", "b", "c"]


def test_receiving_goes_on_when_its_files_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the files cannot be used receive waits, without haste, and health says why."""
    fails = 3

    def failing(path: str, flags: int) -> AbstractContextManager[int]:
        nonlocal fails
        if fails:
            fails -= 1
            raise OSError(errno.ESTALE, "Stale file handle")
        return locked(path, flags)

    async def scenario() -> None:
        async with connect(tmp_path) as b:
            consumer = await b.consumer("t", "g")
            await (await b.producer()).publish("t", b"{}")
            monkeypatch.setattr("bus.file.group.locked", failing)
            waiting = asyncio.create_task(consumer.receive(timeout=20))
            await await_until(lambda: fails < 3)
            await asyncio.sleep(0)
            assert "stale file handle" in (await b.health()).detail

            assert len(await waiting) == 1
            assert (await b.health()).ok

    asyncio.run(scenario())


def test_processes_share_a_group(tmp_path: Path) -> None:
    """Three processes draining one group do every message once between them."""
    script = """
import asyncio, sys, bus
async def main(root):
    async with bus.connect("file:" + root) as b:
        consumer, producer = await b.consumer("t", "g"), await b.producer()
        while batch := await consumer.receive(7, timeout=0.3):
            await consumer.finish(batch, [bus.Message("done", d.body) for d in batch], producer)
asyncio.run(main(sys.argv[1]))
"""
    (tmp_path / "t.jsonl").write_bytes(b"".join(b"%d\n" % n for n in range(2000)))

    workers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]

    done = Counter((tmp_path / "done.jsonl").read_bytes().split())
    assert done == Counter(b"%d" % n for n in range(2000))


def test_reading_far_ahead_stays_small(tmp_path: Path) -> None:
    """Moving 40,000 messages takes no more memory than moving the first thousand."""

    async def scenario() -> None:
        async with connect(tmp_path, sync="false") as b:
            producer, consumer = await b.producer(), await b.consumer("t", "g")
            for start in range(0, 40_000, 5000):
                await producer.publish_many([Message("t", b'{"n":%d}' % n) for n in range(start, start + 5000)])
            tracemalloc.start()
            first = 0
            for count in range(80):
                batch = await consumer.receive(500)
                await consumer.finish(batch, [Message("done", d.body) for d in batch], producer)
                del batch
                if count == 2:
                    first, _ = tracemalloc.get_traced_memory()
            last, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert last < first + 500_000  # the thread may still hold its last batch
            assert (await b.depth("t", "g")).total == 0

    asyncio.run(scenario())
