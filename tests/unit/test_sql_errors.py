"""What a sqlite bus says when its file cannot be used."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import bus
from bus import Message
from bus.sql.trouble import explain


def opening(url: str) -> None:
    """Open and close a bus."""

    async def scenario() -> None:
        async with bus.connect(url):
            pass

    asyncio.run(scenario())


def with_bus(path: Path, work: Callable[[bus.Bus], Awaitable[None]], options: str = "") -> None:
    """Run ``work`` with an open bus."""

    async def scenario() -> None:
        async with bus.connect(f"sqlite:{path}{options}") as b:
            await work(b)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:", "needs the path of a file, as in sqlite:work.db"),
        ("sqlite:a%00b", "needs the path of a file"),
        ("sqlite::memory:", "write memory:"),
        ("sqlite://host/work.db", "takes a path, not a host"),
        ("sqlite:w.db?leese=3s", "no option 'leese'; did you mean 'lease'?"),
        ("sqlite:w.db?lease=1ms", "lease='1ms': must be 50ms to"),
        ("sqlite:w.db?max_size=0", "max_size='0': must be 1 byte to 256MiB"),
        ("sqlite:w.db?synchronous=off", "write full (survives power loss) or normal"),
        ("sqlite:w.db?poll=x", "poll='x': 'x' is not a duration"),
    ],
)
def test_urls_that_cannot_be_used(url: str, expected: str) -> None:
    """A wrong URL is a BusURLError that says what to write, before anything is touched."""
    with pytest.raises(bus.BusURLError) as error:
        bus.connect(url)
    assert expected in str(error.value)


def test_the_default_options() -> None:
    """Thirty seconds of lease, a megabyte of message, and a publish that survives power loss."""
    made = bus.connect("sqlite:w.db")
    assert made.capabilities.durability is bus.Durability.D3
    assert made.capabilities.max_size == 1024**2
    assert bus.connect("sqlite:w.db?synchronous=normal").capabilities.durability is bus.Durability.D2


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    """Naming a directory is a BusURLError."""
    with pytest.raises(bus.BusURLError, match="is a directory; name a file in it"):
        bus.connect(f"sqlite:{tmp_path}")


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    """The error names the directory that is missing."""
    with pytest.raises(bus.BusURLError, match=f"the directory {tmp_path}/no does not exist"):
        opening(f"sqlite:{tmp_path}/no/work.db")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Another kind of file is refused and left as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"this is not a database " * 100)
    with pytest.raises(bus.BusURLError, match=r"notes\.txt is not a SQLite database; name another file"):
        opening(f"sqlite:{path}")
    assert path.read_bytes() == b"this is not a database " * 100


def test_a_database_of_something_else(tmp_path: Path) -> None:
    """A database with other tables is refused and gets none of ours."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(bus.BusURLError, match=r"other\.db is a database of something else"):
        opening(f"sqlite:{path}")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    connection.close()


def test_tables_of_another_version(tmp_path: Path) -> None:
    """A database made by a later taskbus is refused, telling both versions."""
    path = tmp_path / "work.db"
    opening(f"sqlite:{path}")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(bus.BusURLError, match=r"another taskbus \(its tables are of version 99, this one knows 1\)"):
        opening(f"sqlite:{path}")


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    """A file of no bytes, as ``mktemp`` makes it, is a new database."""
    (tmp_path / "work.db").touch()
    opening(f"sqlite:{tmp_path}/work.db")
    opening(f"sqlite:{tmp_path}/work.db")


def test_a_damaged_database(tmp_path: Path) -> None:
    """Damage is a CorruptError that says so."""
    path = tmp_path / "work.db"
    opening(f"sqlite:{path}")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    with pytest.raises(bus.CorruptError, match="is damaged"):
        opening(f"sqlite:{path}")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody can reach, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


_AS_NOBODY = """
import asyncio, os, sys
import bus
import bus.sql
os.setuid(65534)
async def main():
    try:
        async with bus.connect(sys.argv[1]):
            print("opened")
    except bus.BusError as error:
        print(type(error).__name__, error)
asyncio.run(main())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody without rights")
@pytest.mark.parametrize("file_mode", [0o644, 0o666, None])
def test_without_permission(public_folder: Path, file_mode: int | None) -> None:
    """A file, or a folder, that cannot be written to is an UnauthorisedError that says what must be writable."""
    path = public_folder / "work.db"
    if file_mode is not None:
        opening(f"sqlite:{path}")
        path.chmod(file_mode)
    done = subprocess.run([sys.executable, "-c", _AS_NOBODY, f"sqlite:{path}"], capture_output=True, text=True)
    assert done.stdout.startswith("UnauthorisedError"), done
    assert str(path) in done.stdout
    assert "writ" in done.stdout
    assert "permissions" in done.stdout


def test_a_lock_held_for_long(tmp_path: Path) -> None:
    """A publish waits for the lock as long as asked for, then it is an UnreachableError; a consumer waits on."""
    path = tmp_path / "work.db"

    async def scenario(b: bus.Bus) -> None:
        producer, consumer = await b.producer(), await b.consumer("t", "g")
        await producer.publish("t", b"1")
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(bus.UnreachableError, match="locked") as error:
            await producer.publish("t", b"2")
        assert error.value.transient
        assert 0.2 <= time.monotonic() - began < 10
        receiving = asyncio.create_task(consumer.receive(5))
        health = await b.health()
        assert not health.ok
        assert "locked" in health.detail
        done, _ = await asyncio.wait({receiving}, timeout=0.5)
        assert not done
        blocker.execute("ROLLBACK")
        blocker.close()
        assert [delivery.body for delivery in await receiving] == [b"1"]

    with_bus(path, scenario, "?wait=200ms")


def test_health_while_a_lock_is_waited_for(tmp_path: Path) -> None:
    """Health tells of the lock though the thread that waits for it cannot answer."""
    path = tmp_path / "work.db"

    async def scenario(b: bus.Bus) -> None:
        producer = await b.producer()
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        publishing = asyncio.create_task(producer.publish("t", b"{}"))
        seen: list[bus.Health] = []

        async def look() -> None:
            while not seen or seen[-1].ok:
                seen.append(await b.health())
                await asyncio.sleep(0.01)

        async with asyncio.timeout(10):
            await look()
        assert "locked by another process" in seen[-1].detail or "does not answer" in seen[-1].detail
        blocker.execute("ROLLBACK")
        blocker.close()
        await publishing
        assert (await b.health()).ok

    with_bus(path, scenario)


def test_readers_do_not_wait_for_the_lock(tmp_path: Path) -> None:
    """While somebody writes, depth, peek and an empty receive are answered."""
    path = tmp_path / "work.db"

    async def scenario(b: bus.Bus) -> None:
        await (await b.producer()).publish("t", b"{}")
        idle = await b.consumer("other", "g")
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(10):
            assert await b.depth("t", "g") == bus.Depth(1)
            assert len(await b.peek("t")) == 1
            assert await idle.receive(1, timeout=0.02) == []
        blocker.execute("ROLLBACK")
        blocker.close()

    with_bus(path, scenario)


def test_a_file_deleted_while_in_use(tmp_path: Path) -> None:
    """What would be confirmed into a deleted file, and lost with it, is a CorruptError; so is waiting for messages."""
    path = tmp_path / "work.db"

    async def scenario(b: bus.Bus) -> None:
        producer, consumer = await b.producer(), await b.consumer("t", "g")
        receiving = asyncio.create_task(consumer.receive(1))
        path.unlink()
        with pytest.raises(bus.CorruptError, match="deleted or replaced while it was in use; start again"):
            await receiving
        with pytest.raises(bus.CorruptError, match="deleted or replaced"):
            await producer.publish("t", b"{}")
        assert not (await b.health()).ok

    with_bus(path, scenario)


def test_text_that_is_none(tmp_path: Path) -> None:
    """A key or id that is not Unicode is refused before anything is sent."""

    async def scenario(b: bus.Bus) -> None:
        producer = await b.producer()
        for message in (Message("t", b"{}", key="\ud800"), Message("t", b"{}", id="\ud800")):
            with pytest.raises(bus.BadNameError, match="is not Unicode text"):
                await producer.publish_many([Message("t", b"{}"), message])
        assert await b.topics() == []
        await producer.publish_many([Message("t", b"{}", key="\0é\N{GRINNING FACE}", id="\0")])
        (delivery,) = await (await b.consumer("t", "g")).receive(1)
        assert delivery.key == "\0é\N{GRINNING FACE}"

    with_bus(tmp_path / "work.db", scenario)


@pytest.mark.parametrize(
    "number",
    sorted({getattr(sqlite3, name) for name in dir(sqlite3) if name.startswith("SQLITE_")} & set(range(1, 27))),
)
def test_every_error_of_sqlite_is_mapped(tmp_path: Path, number: int) -> None:
    """Each result code becomes an error of the bus that names the file and keeps the bus's rules."""
    problem = sqlite3.OperationalError("from sqlite")
    problem.sqlite_errorcode = number
    error = explain(problem, str(tmp_path / "work.db"))
    assert isinstance(error, bus.BusError)
    assert str(tmp_path / "work.db") in str(error)
    kinds = {5: bus.UnreachableError, 6: bus.UnreachableError, 8: bus.UnauthorisedError, 11: bus.CorruptError}
    kinds |= {13: bus.FullError, 14: bus.UnauthorisedError, 26: bus.BusURLError, 10: bus.UnreachableError}
    assert type(error) is kinds.get(number, type(error))


def test_an_io_error_on_a_full_disk_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's shared memory gives an I/O error where its files give "full"; both are FullErrors."""
    problem = sqlite3.OperationalError("disk I/O error")
    problem.sqlite_errorcode = sqlite3.SQLITE_IOERR | 19 << 8
    assert isinstance(explain(problem, str(tmp_path / "work.db")), bus.UnreachableError)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 1000, 0, 0, 0, 0, 0, 0, 255)))
    assert isinstance(explain(problem, str(tmp_path / "work.db")), bus.FullError)


def test_used_before_it_is_open(tmp_path: Path) -> None:
    """A bus that was not opened says how to open it."""

    async def scenario() -> None:
        made = bus.connect(f"sqlite:{tmp_path}/work.db")
        with pytest.raises(bus.ClosedError, match="async with connect"):
            await made.topics()
        await made.close()

    asyncio.run(scenario())


def test_many_processes_open_a_new_database_at_once(tmp_path: Path) -> None:
    """Six processes that start together on a file that does not exist all get a working bus."""
    script = """
import asyncio, sys
import bus
async def main():
    async with bus.connect(sys.argv[1]) as b:
        await (await b.producer()).publish("t", b"{}")
asyncio.run(main())
"""
    url = f"sqlite:{tmp_path}/work.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, url], stderr=subprocess.PIPE, text=True) for _ in range(6)
    ]
    assert [process.communicate()[1] for process in processes] == [""] * 6

    async def scenario(b: bus.Bus) -> None:
        assert await b.depth("t", "g") == bus.Depth(6)

    with_bus(tmp_path / "work.db", scenario)
