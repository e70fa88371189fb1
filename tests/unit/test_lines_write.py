"""Appending to files and writing to pipes."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bus
from bus import Message


def lines(path: Path | str, **options: str) -> bus.Bus:
    """The bus on ``path``."""
    return bus.connect(bus.BusURL("lines", str(path), options=options))


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


def test_a_batch_is_appended_and_every_topic_goes_to_the_one_file(tmp_path: Path) -> None:
    """Topics share the output; the file is made private to owner and group."""
    path = tmp_path / "out.jsonl"

    async def scenario() -> None:
        async with lines(path) as b:
            producer = await b.producer()
            await producer.publish_many([Message("done", b'{"n":1}'), Message("other", b'{"n":2}')])
            await producer.publish("done", "ü".encode())
            assert path.read_bytes() == b'{"n":1}\n{"n":2}\n' + "ü\n".encode()

    asyncio.run(scenario())
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0


def test_concurrent_publishers_and_processes_keep_lines_whole(tmp_path: Path) -> None:
    """Coroutines of several buses appending at once lose and mix nothing."""
    path = tmp_path / "out.jsonl"

    async def scenario() -> None:
        async with lines(path) as one, lines(path) as two:
            producers = [await one.producer(), await two.producer(), await one.producer()]
            await asyncio.gather(
                *(
                    p.publish("done", b"%d-%d-" % (k, n) + b"x" * 3000)
                    for n in range(100)
                    for k, p in enumerate(producers)
                )
            )

    asyncio.run(scenario())
    found = sorted(line.rstrip("x") for line in path.read_text().splitlines())
    assert found == sorted(f"{k}-{n}-" for n in range(100) for k in range(3))


def test_a_torn_last_line_is_closed_first(tmp_path: Path) -> None:
    """A fragment somebody left stays one bad line and does not spoil the next, also if it appears while we write."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"torn')

    async def scenario() -> None:
        async with lines(path) as b:
            producer = await b.producer()
            await producer.publish("done", b"{}")
            with path.open("ab") as file:
                file.write(b'{"again')
            await producer.publish("done", b"{}")

    asyncio.run(scenario())
    assert path.read_bytes() == b'{"torn\n{}\n{"again\n{}\n'


def test_dead_letters_go_beside_the_output_when_the_first_comes(tmp_path: Path) -> None:
    """PATH.dead is made only when needed; the dead option names another."""
    path, other = tmp_path / "out.jsonl", tmp_path / "other"

    async def scenario() -> None:
        async with lines(path) as b:
            producer = await b.producer()
            await producer.publish("done", b"{}")
            assert os.listdir(tmp_path) == ["out.jsonl"]
            await producer.publish_many([Message("done", b"{}"), Message("hello.dead", b'{"reason":"x"}')])
        async with lines(path, dead=str(other)) as b:
            await (await b.producer()).publish("hello.dead", b'{"reason":"y"}')

    asyncio.run(scenario())
    assert path.read_bytes() == b"{}\n{}\n"
    assert (tmp_path / "out.jsonl.dead").read_bytes() == b'{"reason":"x"}\n'
    assert other.read_bytes() == b'{"reason":"y"}\n'


def test_nothing_is_sent_when_one_message_is_wrong(tmp_path: Path) -> None:
    """Names and bodies of all messages are checked before the first is written."""
    path = tmp_path / "out.jsonl"
    wrong: list[tuple[Message, type[bus.BusError]]] = [
        (Message("done", b"a\nb"), bus.UnsupportedError),
        (Message("done", b"{}", delay=1.0), bus.UnsupportedError),
        (Message("../done", b"{}"), bus.BadNameError),
        (Message("done", b"x" * 101), bus.TooLargeError),
    ]

    async def scenario() -> None:
        async with lines(path, max_line="100") as b:
            producer = await b.producer()
            for message, error in wrong:
                with pytest.raises(error):
                    await producer.publish_many([Message("done", b"{}"), message])
            await producer.close()
            await producer.close()
            with pytest.raises(bus.ClosedError):
                await producer.publish("done", b"{}")

    asyncio.run(scenario())
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_no_partial_record_and_recovers(tmp_path: Path) -> None:
    """A batch that does not fit is not there at all; when there is room again the same call succeeds."""
    path = tmp_path / "out.jsonl"
    batch = [Message("done", b"%d" % n * 100) for n in range(10)]

    async def scenario() -> None:
        async with lines(path) as b:
            producer = await b.producer()
            await producer.publish("done", b"first")
            before = path.read_bytes()
            with file_size_limit(500):
                with pytest.raises(bus.FullError, match=r"out\.jsonl") as error:
                    await producer.publish_many(batch)
                assert error.value.transient
                assert path.read_bytes() == before
            await producer.publish_many(batch)
            assert path.read_bytes() == before + b"".join(m.body + b"\n" for m in batch)

    asyncio.run(scenario())


def test_a_full_tmpfs_leaves_no_partial_record_and_recovers(tmp_path: Path) -> None:
    """The same on a real file system without room."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    path, filler = tmp_path / "out.jsonl", tmp_path / "filler"

    async def scenario() -> None:
        async with lines(path) as b:
            producer = await b.producer()
            await producer.publish("done", b"first")
            filler.write_bytes(b"x" * 40_000)
            with pytest.raises(bus.FullError):
                await producer.publish("done", b"y" * 50_000)
            assert path.read_bytes() == b"first\n"
            filler.unlink()
            await producer.publish("done", b"y" * 50_000)
            assert path.read_bytes() == b"first\n" + b"y" * 50_000 + b"\n"

    try:
        asyncio.run(scenario())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_outputs_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    """A directory, a missing directory, a link, a device: an error that names the path and what is wrong."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    cases = [
        (str(tmp_path), "directory"),
        (f"{tmp_path}/none/out.jsonl", "does not exist"),
        (str(tmp_path / "link"), "symbolic link"),
        ("/dev/full", "device"),
        ("/dev/stdin", "standard output"),
    ]

    async def scenario() -> None:
        for path, text in cases:
            async with lines(path) as b:
                with pytest.raises(bus.BusURLError, match=text):
                    await b.producer()

    asyncio.run(scenario())
    assert not (tmp_path / "elsewhere").exists()


def test_a_removed_output_is_made_again(tmp_path: Path) -> None:
    """What is confirmed after somebody removed the file is in the file of that name."""
    path = tmp_path / "out.jsonl"

    async def scenario() -> None:
        async with lines(path) as b:
            producer = await b.producer()
            await producer.publish("done", b"1")
            path.unlink()
            await producer.publish("done", b"2")

    asyncio.run(scenario())
    assert path.read_bytes() == b"2\n"


def test_a_pipe_takes_as_much_as_its_reader(tmp_path: Path) -> None:
    """A batch larger than the pipe waits for the reader without blocking the loop, and arrives whole."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    bodies = [b"%d" % n * 50 for n in range(5000)]

    async def scenario() -> None:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        async with lines(path) as b:
            producer = await b.producer()
            publishing = asyncio.create_task(producer.publish_many([Message("done", body) for body in bodies]))
            assert await asyncio.wait([publishing], timeout=0.1) == (set(), {publishing})
            got = bytearray()
            while not publishing.done() or len(got) < sum(map(len, bodies)) + len(bodies):
                try:
                    got += os.read(reader, 100_000)
                except BlockingIOError:
                    await asyncio.sleep(0)
            await publishing
            assert bytes(got).split(b"\n") == [*bodies, b""]

            os.close(reader)
            with pytest.raises(bus.OutputClosedError, match="pipe"):
                await producer.publish("done", b"{}")

    asyncio.run(scenario())


def test_a_named_pipe_waits_for_its_reader(tmp_path: Path) -> None:
    """Opening the output returns when somebody reads it, and can be given up."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def scenario() -> None:
        async with lines(path) as b:
            opening = asyncio.create_task(b.producer())
            assert await asyncio.wait([opening], timeout=0.1) == (set(), {opening})
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            producer = await asyncio.wait_for(opening, 5)
            await producer.publish("done", b"{}")
            assert os.read(reader, 100) == b"{}\n"
            os.close(reader)

    asyncio.run(scenario())


def test_dev_null_swallows_and_its_dead_letters_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made under /dev: dead letters go to TOPIC in the current directory."""
    monkeypatch.chdir(tmp_path)

    async def scenario() -> None:
        async with lines("/dev/null") as b:
            producer = await b.producer()
            await producer.publish_many([Message("done", b"{}"), Message("hello.dead", b"{}")])

    asyncio.run(scenario())
    assert (tmp_path / "hello.dead").read_bytes() == b"{}\n"
