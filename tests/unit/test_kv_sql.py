"""The table of keys and values: its clock, what it deletes, and what it says when the database cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from bus import BusError, BusURLError, UnreachableError, parse_url
from bus.kv import open_kv
from bus.kv.sql import SqlKeyValue


class Machine:
    """A run of a machine, and the seconds since it started."""

    name = "first run"
    now = 100.0

    def __call__(self) -> tuple[str, float]:
        return self.name, self.now


def _rows(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        (count,) = connection.execute("SELECT count(*) FROM taskbus_kv").fetchone()
    connection.close()
    return int(count)


def test_time_is_that_since_the_machine_started(tmp_path: Path) -> None:
    """An entry with a time to live is there to the microsecond, and not after a restart; one without stays."""

    async def main() -> None:
        machine = Machine()
        async with SqlKeyValue(parse_url(f"sqlite:{tmp_path}/kv.db"), machine=machine) as store:
            await store.create("kept", b"1")
            revision = await store.create("brief", b"1", ttl=10.0)
            machine.now += 9.999999
            revision = await store.update("brief", b"2", revision, ttl=10.0)
            machine.now += 9.999999
            assert await store.get("brief") == (b"2", revision)
            machine.now += 0.000001
            assert await store.get("brief") is None
            revision = await store.create("brief", b"3", ttl=10.0)
            machine.name, machine.now = "second run", 5.0
            assert await store.get("brief") is None
            assert await store.get("kept") is not None
            assert await store.create("brief", b"4", ttl=10.0) > revision

    asyncio.run(main())


def test_what_has_expired_is_deleted(tmp_path: Path) -> None:
    """Entries whose keys never come again do not stay in the file, and nothing else is deleted."""

    async def main() -> None:
        machine = Machine()
        url = parse_url(f"sqlite:{tmp_path}/kv.db")
        async with SqlKeyValue(url, machine=machine) as store:
            for number in range(1100):
                await store.create(f"brief.{number}", b"1", ttl=10.0)
            await store.create("kept", b"1")
            await store.create("long", b"1", ttl=1000.0)
        assert _rows(tmp_path / "kv.db") == 1102
        machine.now += 11.0
        async with SqlKeyValue(url, machine=machine) as store:
            await store.create("a", b"1")
            assert _rows(tmp_path / "kv.db") == 103
            await store.create("b", b"1")
            assert _rows(tmp_path / "kv.db") == 4
            assert await store.get("long") is not None

    asyncio.run(main())


def test_a_locked_database(tmp_path: Path) -> None:
    """Who waits for a lock in vain is told, and nothing was done; afterwards it works."""

    async def main() -> None:
        async with open_kv(f"sqlite:{tmp_path}/kv.db?timeout=200ms") as store:
            with sqlite3.connect(tmp_path / "kv.db", isolation_level=None) as other:
                other.execute("BEGIN EXCLUSIVE")
                with pytest.raises(UnreachableError, match=r"writing a in sqlite:.*locked"):
                    await store.create("a", b"1")
                other.execute("ROLLBACK")
            other.close()
            assert await store.get("a") is None
            await store.create("a", b"1")

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_database_that_is_not_there(scheme: str) -> None:
    """The error names the place and shows no password, nor does the store itself."""

    async def main() -> None:
        store = open_kv(f"{scheme}://me:canary@127.0.0.1:1/name?timeout=1s")
        assert "canary" not in repr(store)
        with pytest.raises(UnreachableError, match=rf"opening {scheme}://me:\*\*\*@127.0.0.1:1/name") as caught:
            await store.open()
        assert "canary" not in str(caught.value)
        await store.close()

    asyncio.run(main())


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    """A folder that is not there, and a file that is no database, are told with their names."""

    async def main() -> None:
        (tmp_path / "text").write_text("no database, and long enough to be taken for one " * 50)
        for path in ("nowhere/kv.db", "text"):
            store = open_kv(f"sqlite:{tmp_path}/{path}")
            with pytest.raises(BusError, match=path):
                await store.open()
            await store.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:", "name a file"),
        ("mysql://u@h", "name a database"),
        ("sqlite:a.db?timout=3s", "did you mean 'timeout'"),
        ("kafka://h/x", "keeps no keys and values"),
        ("sqlit:x", "did you mean 'sqlite'"),
    ],
)
def test_wrong_urls(url: str, told: str) -> None:
    """What names no store is told before anything is opened."""
    with pytest.raises(BusURLError, match=told):
        open_kv(url)
