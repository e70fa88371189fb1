"""Several files or alerts taskmasters on one state, as real processes: refused, standing by, killed and frozen."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from task.task import Task
from tests.acceptance.support import publish
from tests.acceptance.test_alerts import alert, write_rules
from tests.acceptance.test_taskmasters import left, published
from tests.helpers import wait_until
from tests.receivers import Posted, hook
from tests.taskbus_command import start, taskbus

FILES = """
[[rule]]
id = "load"
path = "in/*.json"
type = "load"
settle = "100ms"

[[rule]]
id = "together"
path = "in/*.json"
type = "together"
task = "{group}?n={count}"
settle = "100ms"
group_by = "directory"
count = 10
"""
SHARED = ("--state", "sqlite:state.db", "--lease", "2s")
#: Seconds for anything to happen.
WAIT = 60


class Replica:
    """One process, and what it logged."""

    def __init__(self, kind: str, folder: Path, number: int, *more: str) -> None:
        self.path = folder / f"log-{number}"
        self.path.unlink(missing_ok=True)
        args = ("taskmaster", kind, "rules.toml", "--bus", "sqlite:work.db", "--log-format", "json", *more)
        with self.path.open("ab") as log:
            self.process = start(*args, cwd=folder, stderr=log, stdout=subprocess.DEVNULL)

    @property
    def log(self) -> str:
        return self.path.read_text()

    def says(self, event: str, times: int = 1) -> bool:
        assert self.process.poll() is None, self.log
        return self.log.count(f'"event":"{event}"') >= times

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0, self.log
        assert "Traceback" not in self.log


@contextmanager
def replicas(kind: str, folder: Path, count: int, *more: str) -> Iterator[list[Replica]]:
    """So many, the first of which is at work."""
    (folder / "in").mkdir(exist_ok=True)
    found: list[Replica] = []
    try:
        for number in range(count):
            found.append(Replica(kind, folder, number, *more))
            wait_until(lambda: found[-1].says("started"), WAIT)
            if number == 0 and more:
                wait_until(lambda: found[0].says("leader"), WAIT)
        yield found
    finally:
        for one in found:
            with suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGCONT)
            one.process.kill()
            one.process.wait()


def arrive(folder: Path, first: int, count: int) -> None:
    for number in range(first, first + count):
        (folder / "in" / f"{number}.json").write_text("{}")


def freeze(replica: Replica, folder: Path) -> None:
    """Stop it between two transactions: in the midst of one it would hold the lock of a SQLite file until it wakes."""

    def frozen() -> bool:
        replica.process.send_signal(signal.SIGSTOP)
        try:
            for name in ("state.db", "work.db"):
                with closing(sqlite3.connect(folder / name, timeout=0.2, isolation_level=None)) as database:
                    database.execute("BEGIN IMMEDIATE")
                    database.execute("ROLLBACK")
        except sqlite3.OperationalError:
            replica.process.send_signal(signal.SIGCONT)
            return False
        return True

    wait_until(frozen, WAIT)


def loads(folder: Path) -> int:
    return left(folder, "load", "reader") if (folder / "work.db").exists() else 0


@pytest.mark.parametrize("kind", ["files", "alerts"])
def test_a_second_one_on_a_path_is_refused(tmp_path: Path, kind: str) -> None:
    """It says which process is there and what to do; once that is gone, even by a kill, there is room at once."""
    with hook() as server:
        write_rules(tmp_path, server)
        if kind == "files":
            (tmp_path / "rules.toml").write_text(FILES)
        with replicas(kind, tmp_path, 1) as (first,):
            second = taskbus("taskmaster", kind, "rules.toml", "--bus", "sqlite:work.db", cwd=tmp_path)
            assert second.code == 2, second
            pid = str(first.process.pid)
            assert re.search(rf"another {kind} taskmaster \(process {pid}\) works on the state \S+: give", second.err)
            assert "--state sqlite:" in second.err
            first.process.kill()
            first.process.wait()
        with replicas(kind, tmp_path, 1) as (third,):
            third.end()


def test_files_killed_and_frozen(tmp_path: Path) -> None:
    """One at work is killed, the next frozen and woken: each file is in one task of its own and in one group."""
    (tmp_path / "rules.toml").write_text(FILES)
    with replicas("files", tmp_path, 3, *SHARED) as three:
        first = three[0]
        arrive(tmp_path, 0, 10)
        wait_until(lambda: loads(tmp_path) == 10, WAIT)
        assert not any(one.says("leader") for one in three[1:])
        arrive(tmp_path, 10, 5)
        wait_until(lambda: loads(tmp_path) == 15, WAIT)
        first.process.kill()
        wait_until(lambda: any(one.says("leader") for one in three[1:]), WAIT)
        second, third = sorted(three[1:], key=lambda one: not one.says("leader"))
        arrive(tmp_path, 15, 5)
        wait_until(lambda: loads(tmp_path) == 20, WAIT)
        arrive(tmp_path, 20, 5)
        wait_until(lambda: loads(tmp_path) == 25, WAIT)
        freeze(second, tmp_path)
        wait_until(lambda: third.says("leader"), WAIT)
        arrive(tmp_path, 25, 5)
        wait_until(lambda: loads(tmp_path) == 30, WAIT)
        second.process.send_signal(signal.SIGCONT)
        wait_until(lambda: second.says("cut-short") or second.says("follower"), WAIT)
        arrive(tmp_path, 30, 10)
        wait_until(lambda: loads(tmp_path) == 40, WAIT)
        wait_until(lambda: left(tmp_path, "together", "reader") >= 4, WAIT)
        second.end()
        third.end()

    names = Counter(Path(task.value).name for task in published(tmp_path, "load"))
    assert names == dict.fromkeys((f"{number}.json" for number in range(40)), 1)
    groups = published(tmp_path, "together")
    assert len({task.id for task in groups}) == 4
    assert {task.value.rpartition("=")[2] for task in groups} == {"10"}


def test_alerts_killed(tmp_path: Path) -> None:
    """Those standing by tell nothing; the successor tells what the one that was killed had not, and each once."""
    with hook() as server:
        write_rules(tmp_path, server, interval="100ms")
        with replicas("alerts", tmp_path, 2, *SHARED) as (first, second):
            publish(f"sqlite:{tmp_path}/work.db", *alerts(0, 5), topic="done")
            wait_until(lambda: told(server.posted) == 5, WAIT)
            assert not second.says("leader")
            first.process.kill()
            publish(f"sqlite:{tmp_path}/work.db", *alerts(5, 5), topic="done")
            wait_until(lambda: told(server.posted) == 10, WAIT)
            second.end()
        assert told(server.posted) == 10


def test_alerts_rules_that_are_edited(tmp_path: Path) -> None:
    """A bad edit is told and the old rules go on; a good one is taken, with its channels and topics."""
    with hook() as server, hook() as other:
        write_rules(tmp_path, server)
        rules = tmp_path / "rules.toml"
        good = rules.read_text()
        url = f"sqlite:{tmp_path}/work.db"
        with replicas("alerts", tmp_path, 1) as (one,):
            publish(url, *alerts(0, 1), topic="done")
            wait_until(lambda: told(server.posted) == 1, WAIT)
            rules.write_text(good.replace("collect", "colect"))
            one.process.send_signal(signal.SIGHUP)
            wait_until(lambda: one.says("rules-refused"), WAIT)
            assert "rules.toml:12: rule[0].colect: unknown key; did you mean 'collect'?" in one.log
            publish(url, *alerts(1, 1), topic="done")
            wait_until(lambda: told(server.posted) == 2, WAIT)
            more = good.replace(server.url, other.url) + '[[deadline]]\ntopic = "extra"\nwithin = "200ms"\n'
            rules.write_text(more)
            one.process.send_signal(signal.SIGHUP)
            wait_until(lambda: one.says("rules-reloaded"), WAIT)
            publish(url, *alerts(2, 1), topic="done")
            wait_until(lambda: told(other.posted) == 1, WAIT)
            publish(url, Task("extra", id="late"), topic="extra")
            wait_until(lambda: told(other.posted) == 2, WAIT)
            one.end()
        assert told(server.posted) == 2


def test_what_a_rule_that_was_renamed_had_counted(tmp_path: Path) -> None:
    """Alerts that a rule had heard and not told are told by the first rule there is."""
    with hook() as server:
        write_rules(tmp_path, server, collect="10s", interval="10s")
        rules = tmp_path / "rules.toml"
        with replicas("alerts", tmp_path, 1) as (one,):
            publish(f"sqlite:{tmp_path}/work.db", *alerts(0, 3), topic="done")
            wait_until(lambda: left(tmp_path, "done", "alerts") == 0, WAIT)
            rules.write_text(rules.read_text().replace('id = "all"', 'id = "new"').replace('"10s"', '"100ms"'))
            wait_until(lambda: one.says("alerts-inherited"), WAIT)
            wait_until(lambda: told(server.posted) == 3, WAIT)
            one.end()


def alerts(first: int, count: int) -> list[Task]:
    return [alert(f"{number}") for number in range(first, first + count)]


def told(posted: Sequence[Posted]) -> int:
    return sum(one.body["count"] for one in posted)
