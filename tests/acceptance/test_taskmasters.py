"""Taskmasters as real processes on the embedded bus."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from bus import connect
from task.codec import decode
from task.task import Task
from taskmasters.cron.rules import load_cron_rules
from taskmasters.cron.schedule import parse_schedule
from taskmasters.cron.state import SqliteState
from taskmasters.zone import find_zone
from tests.helpers import last_elected, wait_until
from tests.taskbus_command import start, taskbus

EVERY_SECOND = """
[[rule]]
id = "tick"
cron = "* * * * * *"
type = "tick"
task = "{ts}"
missed = "all"
"""

#: Seconds for which a replica is frozen; more of them in the long form.
_FROZEN = int(os.environ.get("TASKBUS_FROZEN", "0"))
SCHEDULE = parse_schedule("* * * * * *", find_zone("UTC")).text
_seen: dict[tuple[Path, str], int] = {}


def published(folder: Path, topic: str) -> list[Task]:
    """Everything in a topic that nobody has received, received now."""

    async def main() -> list[Task]:
        found: list[Task] = []
        async with connect(f"sqlite:{folder}/work.db") as bus:
            consumer = await bus.consumer(topic, "reader")
            while deliveries := await consumer.receive(1000, timeout=1.0):
                found += [decode(delivery.body) for delivery in deliveries]
                await consumer.ack(deliveries)
        return found

    return asyncio.run(main())


def left(folder: Path, topic: str, group: str) -> int:
    """How many messages of a topic the group has not settled."""

    async def main() -> int:
        async with connect(f"sqlite:{folder}/work.db") as bus:
            return (await bus.depth(topic, group)).total

    return asyncio.run(main())


def sent(folder: Path, state: str = "rules.state.db") -> int:
    """How many seconds the rule ``tick`` has gone on since it was first seen by this test."""
    if not (folder / state).exists():
        return 0
    opened = SqliteState(str(folder / state))
    reached = opened.read({"tick": SCHEDULE}).get("tick", 0)
    opened.close()
    return reached - _seen.setdefault((folder, state), reached) if reached else 0


@pytest.mark.slow
def test_cron_rules_edited_while_it_runs(tmp_path: Path) -> None:
    """A bad edit is reported and the old rules go on; a good one takes over; no second is sent twice."""
    rules = tmp_path / "rules.toml"
    rules.write_text(EVERY_SECOND)
    log = tmp_path / "log"
    with log.open("wb") as err:
        process = start("taskmaster", "cron", "rules.toml", "--bus", "sqlite:work.db", cwd=tmp_path, stderr=err)
    try:
        wait_until(lambda: sent(tmp_path) >= 1, 30)
        rules.write_text(EVERY_SECOND.replace("* * * * * *", "61 * * * * *"))
        wait_until(lambda: "does not fit the second" in log.read_text(), 30)
        reached = sent(tmp_path)
        wait_until(lambda: sent(tmp_path) > reached, 30)
        rules.write_text(EVERY_SECOND + EVERY_SECOND.replace("tick", "tock"))
        wait_until(lambda: "new rules are in force" in log.read_text(), 30)
        reached = sent(tmp_path)
        wait_until(lambda: sent(tmp_path) > reached + 1, 30)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0

    ticks, tocks = published(tmp_path, "tick"), published(tmp_path, "tock")
    for tasks in (ticks, tocks):
        instants = sorted(task.meta["cron"] for task in tasks)
        assert len(set(instants)) == len(instants) > 1
        seconds = [int(datetime.fromisoformat(text).timestamp()) for text in instants]
        assert seconds == list(range(seconds[0], seconds[-1] + 1))


@pytest.mark.slow
@pytest.mark.timeout(120 + 12 * _FROZEN)
def test_three_replicas_of_cron(tmp_path: Path) -> None:
    """One of three is at work; frozen, and killed, it is replaced: every second has one id, and none is left out.

    With ``TASKBUS_FROZEN=30`` it is frozen for so many seconds, and so long is looked after each change.
    """
    (tmp_path / "rules.toml").write_text(EVERY_SECOND)
    args = ["cron", "rules.toml", "--bus", "sqlite:work.db", "--state", "sqlite:state.db", "--lease", "2s"]
    logs = [tmp_path / f"log{number}" for number in range(3)]
    replicas = []
    for log in logs:
        with log.open("wb") as err:
            replicas.append(start("taskmaster", *args, "--log-format", "json", cwd=tmp_path, stderr=err))

    def leader(among: set[int]) -> int | None:
        return last_elected({number: logs[number] for number in among})

    everybody = {0, 1, 2}
    try:
        wait_until(lambda: leader(everybody) is not None, 30)
        first = leader(everybody)
        assert first is not None
        wait_until(lambda: peeked(tmp_path) >= 3, 30)
        wait_until(lambda: frozen(replicas[first], tmp_path), 60)
        wait_until(lambda: leader(everybody - {first}) is not None, 30)
        second = leader(everybody - {first})
        assert second is not None
        before = peeked(tmp_path)
        wait_until(lambda: peeked(tmp_path) >= before + _FROZEN, 30 + 3 * _FROZEN)
        replicas[first].send_signal(signal.SIGCONT)
        before = peeked(tmp_path)
        wait_until(lambda: peeked(tmp_path) >= before + 3 + _FROZEN, 30 + 3 * _FROZEN)
        replicas[second].kill()
        third = everybody - {second}
        before = peeked(tmp_path)
        wait_until(lambda: peeked(tmp_path) >= before + 6 + _FROZEN, 30 + 3 * _FROZEN)
        assert leader(third) is not None
    finally:
        for replica in replicas:
            # One that is still frozen, because this has failed, would not end.
            replica.send_signal(signal.SIGCONT)
            replica.terminate()
            replica.communicate(timeout=30)
    assert "another replica leads now" in logs[first].read_text()

    tasks = published(tmp_path, "tick")
    seconds = [int(datetime.fromisoformat(task.meta["cron"]).timestamp()) for task in tasks]
    assert sorted(set(seconds)) == list(range(min(seconds), max(seconds) + 1))
    (rule,) = load_cron_rules(str(tmp_path / "rules.toml"))
    assert {task.id for task in tasks} == {rule.make(second, 0.0).id for second in seconds}
    assert len({task.id for task in tasks}) == len(set(seconds))
    print(f"{len(set(seconds))} instants, {len(tasks) - len(set(seconds))} came twice")


def frozen(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Freeze it, unless that is in the midst of a transaction: its lock would keep everybody else from working."""
    process.send_signal(signal.SIGSTOP)
    for name in ("state.db", "work.db"):
        with closing(sqlite3.connect(folder / name, timeout=3.0, isolation_level=None)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                return False
    return True


def peeked(folder: Path) -> int:
    """How many seconds were sent."""

    async def main() -> int:
        async with connect(f"sqlite:{folder}/work.db") as bus:
            return (await bus.depth("tick", "reader")).total

    return asyncio.run(main())


def test_cron_stopped_and_started_again(tmp_path: Path) -> None:
    """Stopped with SIGTERM it exits 0; started again it goes on where it was: every second once."""
    (tmp_path / "rules.toml").write_text(EVERY_SECOND)
    for goal in (1, 3):
        process = start("taskmaster", "cron", "rules.toml", "--bus", "sqlite:work.db", cwd=tmp_path)
        wait_until(lambda goal=goal: sent(tmp_path) >= goal)  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0

    found = [datetime.fromisoformat(task.meta["cron"]) for task in published(tmp_path, "tick")]
    assert {(after - before).total_seconds() for before, after in pairwise(found)} == {1.0}


def test_two_cron_replicas(tmp_path: Path) -> None:
    """Two replicas with states of their own give each instant the same id."""
    (tmp_path / "rules.toml").write_text(EVERY_SECOND)
    replicas = [
        start("taskmaster", "cron", "rules.toml", "--bus", "sqlite:work.db", "--state", f"{n}.db", cwd=tmp_path)
        for n in range(2)
    ]
    for number in range(2):
        wait_until(lambda number=number: sent(tmp_path, f"{number}.db") >= 2)  # type: ignore[misc]
    for process in replicas:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0

    tasks = published(tmp_path, "tick")
    instants = {task.meta["cron"] for task in tasks}
    assert len({task.id for task in tasks}) == len(instants)
    assert len({(task.id, task.value) for task in tasks}) == len(instants)


def test_cron_dry_run_sends_nothing(tmp_path: Path) -> None:
    """--dry-run prints tasks as they come due until it is stopped, and makes neither bus nor state."""
    (tmp_path / "rules.toml").write_text(EVERY_SECOND)
    process = start("taskmaster", "cron", "rules.toml", "--dry-run", cwd=tmp_path)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)

    assert process.returncode == 0
    assert first["type"] == "tick"
    assert abs((datetime.fromisoformat(first["meta"]["cron"]) - datetime.now(UTC)).total_seconds()) < 30
    assert [path.name for path in tmp_path.iterdir()] == ["rules.toml"]


def test_cron_into_a_closed_pipe(tmp_path: Path) -> None:
    """``--next 100000 | head -1`` ends quietly."""
    (tmp_path / "rules.toml").write_text(EVERY_SECOND)
    process = start("taskmaster", "cron", "rules.toml", "--next", "100000", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["type"] == "tick"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=30)

    assert b"Traceback" not in err


CHAIN = """
[[rule]]
id = "fan"
match = { type = "extract" }
type = "transform"
task = "{parent.value}/{item}"
for_each = "1..3"
"""


def test_on_done_in_a_pipe(tmp_path: Path) -> None:
    """Done tasks in, children out, and an end when the input ends."""
    (tmp_path / "rules.toml").write_text(CHAIN)
    result = taskbus(
        *("taskmaster", "on-done", "rules.toml", "--in", "-"),
        cwd=tmp_path,
        stdin=b'{"type":"extract","task":"v","id":"p","result":"complete"}\n{"type":"extract","task":"v"}\n',
    )

    assert result.code == 0
    assert [task["task"] for task in result.tasks] == ["v/1", "v/2", "v/3"]
