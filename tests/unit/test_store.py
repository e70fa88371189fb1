"""Where taskmasters keep their state: transactions that are whole, repeated where that helps, and told clearly."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, String, func, insert, select, update

from bus import MissingExtraError
from task.errors import SettingsError, StateDataError, StateError
from taskmasters.store import Schema, Store, open_store
from taskmasters.store.place import find_place
from taskmasters.store.schema import insert_new, table
from tests.servers.mariadb import MariadbServer
from tests.servers.postgres import PostgresServer

things = table("test_things", Column("name", String(50), primary_key=True), Column("count", Integer, nullable=False))
THINGS = Schema("things", 1, [things])


@pytest.fixture
def store(state_url: str) -> Iterator[Store]:
    """An open store with the table ``things``."""
    opened = open_store(state_url, THINGS)
    yield opened
    opened.close()


def counted(tx: Connection) -> int:
    return tx.execute(select(func.sum(things.c.count))).scalar() or 0


def increment(tx: Connection) -> None:
    """Read, then write what was read: wrong wherever two do it at once without noticing."""
    before = tx.execute(select(things.c.count).where(things.c.name == "n")).scalar_one()
    tx.execute(update(things).where(things.c.name == "n").values(count=before + 1))


def test_a_transaction_is_whole(store: Store) -> None:
    """What it returned is returned; what it raised is raised, and nothing of it is kept."""

    def half(tx: Connection) -> None:
        insert_new(tx, things, [{"name": "a", "count": 1}])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.call(half)
    assert store.call(counted) == 0

    async def main() -> int:
        await store.run(lambda tx: insert_new(tx, things, [{"name": "a", "count": 2}, {"name": "A", "count": 3}]))
        return await store.run(counted)

    assert asyncio.run(main()) == 5


def test_a_transaction_in_a_transaction(tmp_path: Path) -> None:
    """It would wait for ever, and is refused."""
    store = open_store(str(tmp_path / "s.db"), THINGS)
    with pytest.raises(RuntimeError, match="cannot wait for another one"):
        store.call(lambda tx: store.call(counted))
    store.close()


def test_what_is_there_stays(store: Store) -> None:
    """``insert_new`` leaves a row that is there as it is, and refuses values that do not fit, even in MySQL."""
    store.call(lambda tx: insert_new(tx, things, [{"name": "a", "count": 1}]))
    store.call(lambda tx: insert_new(tx, things, [{"name": "a", "count": 7}, {"name": "b", "count": 2}]))
    assert store.call(counted) == 3
    with pytest.raises(StateDataError, match="cannot be used"):
        store.call(lambda tx: tx.execute(insert(things).values(name="c", count=None)))


def test_transactions_of_several_do_not_mix(state_url: str, store: Store) -> None:
    """Several stores on one database that each read and then write lose no step: they are repeated."""
    store.call(lambda tx: insert_new(tx, things, [{"name": "n", "count": 0}]))
    stores = [open_store(state_url, THINGS) for _ in range(3)]

    def work(mine: Store) -> None:
        for _ in range(20):
            mine.call(increment)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in stores:
        mine.close()
    assert store.call(counted) == 60


def test_tables_are_versioned(state_url: str, store: Store) -> None:
    """Tables of another version are not touched, and the error says which taskbus to use."""
    with pytest.raises(StateError, match=r"tables of things in .* have version 1, which is older than the 2"):
        open_store(state_url, Schema("things", 2, [things]))
    with pytest.raises(StateError, match="have version 1, which is newer than the 0"):
        open_store(state_url, Schema("things", 0, [things]))
    open_store(state_url, THINGS).close()


def test_opened_by_several_at_once(state_url: str) -> None:
    """Processes that start together on an empty database all find their tables."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            open_store(state_url, THINGS).close()
        except StateError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_closing_twice_is_fine(store: Store) -> None:
    """``close`` ends what runs and may be called again."""
    store.close()
    store.close()


def test_a_kill_leaves_whole_transactions(tmp_path: Path) -> None:
    """SIGKILL in the midst of transactions of two steps: every one is there with both or not at all."""
    code = """
import os, sys, threading
from sqlalchemy import update
from taskmasters.store import open_store
from tests.unit.test_store import THINGS, things
from taskmasters.store.schema import insert_new

store = open_store("state.db", THINGS)
store.call(lambda tx: insert_new(tx, things, [{"name": "a", "count": 0}, {"name": "b", "count": 0}]))
def both(tx):
    for name in "ab":
        tx.execute(update(things).where(things.c.name == name).values(count=things.c.count + 1))
print("ready", flush=True)
while True:
    store.call(both)
    print("done", flush=True)
"""
    reached = 0
    for run in range(5):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        promised = 0
        while promised < 10 + 7 * run:
            process.stdout.readline()
            promised += 1
        process.kill()
        rest, _ = process.communicate()
        promised += rest.count("done")
        store = open_store(str(tmp_path / "state.db"), THINGS)
        rows = store.call(lambda tx: tx.execute(select(things.c.count)).scalars().all())
        store.close()
        assert rows[0] == rows[1] >= reached + promised
        reached = rows[0]


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    """Somebody else's lock on the file delays a transaction, and fails none."""
    store = open_store(str(tmp_path / "s.db"), THINGS)
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.2, other.rollback)
    timer.start()
    store.call(lambda tx: insert_new(tx, things, [{"name": "a", "count": 1}]))
    assert store.call(counted) == 1
    timer.join()
    other.close()
    store.close()


def test_a_server_that_goes_and_comes(postgres: PostgresServer) -> None:
    """The connection that was lost with the server is made again, and the transaction repeated."""
    _goes_and_comes(postgres)


def test_a_mariadb_that_goes_and_comes(mariadb: MariadbServer) -> None:
    """The same with MariaDB."""
    _goes_and_comes(mariadb)


def _goes_and_comes(server: PostgresServer | MariadbServer) -> None:
    store = open_store(server.new(), THINGS)
    store.call(lambda tx: insert_new(tx, things, [{"name": "n", "count": 0}]))
    refusals: list[StateError] = []
    thread = threading.Thread(target=server.kill_and_start)
    thread.start()
    while thread.is_alive():
        try:
            store.call(increment)
        except StateError as error:
            refusals.append(error)
    thread.join()
    assert all(error.transient and "canary" not in str(error) for error in refusals)
    store.call(increment)
    assert store.call(counted) >= 1
    store.close()


@pytest.mark.parametrize(
    ("text", "shown", "driver"),
    [
        ("work.db", "work.db", "sqlite"),
        ("./a b/work.db", "./a b/work.db", "sqlite"),
        ("sqlite:///work.db", "work.db", "sqlite"),
        ("sqlite:////var/work.db", "/var/work.db", "sqlite"),
        ("sqlite:work.db", "work.db", "sqlite"),
        (":memory:", ":memory:", "sqlite"),
        ("postgresql://u:canary@h:1/d", "postgresql://u:***@h:1/d", "postgresql+psycopg"),
        ("postgres://u@h/d?password=canary", "postgres://u@h/d?password=***", "postgresql+psycopg"),
        ("mysql://u:canary@h/d", "mysql://u:***@h/d", "mysql+pymysql"),
        ("mariadb://u@h/d", "mariadb://u@h/d", "mysql+pymysql"),
    ],
)
def test_places(text: str, shown: str, driver: str) -> None:
    """Paths and URLs name databases; their names for people hold no password."""
    place = find_place(text)
    assert (place.shown, place.url.drivername) == (shown, driver)
    assert "canary" not in repr(place)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgrsql://u:canary@h/d", "state cannot be kept in postgrsql:.*did you mean 'postgresql'"),
        ("nats://u:canary@h", "state cannot be kept in nats"),
        ("mysql://u:canary@h", "names no database"),
        ("postgresql://u:canary@h:port/d", "cannot be read"),
        ("sqlite://host/work.db", "write sqlite:///FILE"),
        ("sqlite:///work.db?mode=ro", "write sqlite:///FILE"),
    ],
)
def test_wrong_places(text: str, said: str) -> None:
    """What names no database is told without its password."""
    with pytest.raises(SettingsError, match=said) as caught:
        find_place(text)
    assert "canary" not in str(caught.value)


def test_errors_name_the_place_and_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no database, a folder that is not there, a driver that is not installed."""
    (tmp_path / "text.db").write_text("this is no database" * 100)
    with pytest.raises(StateError, match=r"the state in .*text.db cannot be used: file is not a database"):
        open_store(str(tmp_path / "text.db"))
    with pytest.raises(StateError, match=r"missing/s.db cannot be used: unable to open"):
        open_store(str(tmp_path / "missing" / "s.db"))
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(MissingExtraError, match=r"needs pymysql: pip install 'taskbus\[mysql\]'"):
        open_store("mysql://u:canary@127.0.0.1:1/d")


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told that it is, and that another try may succeed."""
    pytest.importorskip("psycopg")
    monkeypatch.setattr("taskmasters.store.store._PATIENCE", 0.0)
    with pytest.raises(StateError, match=r"postgresql://u:\*\*\*@127.0.0.1:1/d cannot be used") as caught:
        open_store("postgresql://u:canary@127.0.0.1:1/d")
    assert caught.value.transient
    assert "canary" not in str(caught.value)
