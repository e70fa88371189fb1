"""Replicas of cron that share a bucket of JetStream, as real processes on a real server, with no SQL anywhere."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from bus import BusError, connect
from task.codec import decode
from task.task import Task
from tests.helpers import last_elected, wait_until
from tests.servers.nats import NatsServer, nats_server
from tests.taskbus_command import start, taskbus

_RULES = """
[[rule]]
id = "tick"
cron = "* * * * * *"
type = "tick"
task = "{ts}"
missed = "all"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One running server."""
    with nats_server(tmp_path) as server:
        yield server


def _published(url: str) -> list[Task]:
    """Everything in the topic ``tick``."""

    async def main() -> list[Task]:
        found: list[Task] = []
        async with connect(url) as bus, await bus.consumer("tick", "reader") as consumer:
            while deliveries := await consumer.receive(1000, timeout=1.0):
                found += [decode(delivery.body) for delivery in deliveries]
                await consumer.ack(deliveries)
        return found

    return asyncio.run(main())


def _count(url: str) -> int:
    """How many tasks are there."""

    async def main() -> int:
        try:
            async with connect(url) as bus:
                return (await bus.depth("tick", "nobody")).total
        except BusError:
            return 0

    return asyncio.run(main())


def _more(url: str, number: int) -> None:
    before = _count(url)
    wait_until(lambda: _count(url) >= before + number, 60)


def _each_second_once(tasks: list[Task]) -> None:
    """Every second between the first and the last has one id; one that was sent twice has it twice."""
    seconds = [int(datetime.fromisoformat(task.meta["cron"]).timestamp()) for task in tasks]
    assert sorted(set(seconds)) == list(range(min(seconds), max(seconds) + 1))
    assert len({task.id for task in tasks}) == len(set(seconds))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_replicas(server: NatsServer, tmp_path: Path) -> None:
    """One of three is at work; frozen, and killed, it is replaced; the server is killed: every second has one id."""
    (tmp_path / "rules.toml").write_text(_RULES)
    state = f"{server.url}/cron?timeout=2s"
    args = ["cron", "rules.toml", "--bus", server.url, "--state", state, "--lease", "2s", "--log-format", "json"]
    logs = [tmp_path / f"log{number}" for number in range(3)]
    replicas: list[subprocess.Popen[bytes]] = []
    for log in logs:
        with log.open("wb") as err:
            replicas.append(start("taskmaster", *args, cwd=tmp_path, stderr=err))

    def leader(among: set[int]) -> int | None:
        return last_elected({number: logs[number] for number in among})

    everybody = {0, 1, 2}
    try:
        wait_until(lambda: leader(everybody) is not None, 60)
        first = leader(everybody)
        assert first is not None
        wait_until(lambda: _count(server.url) >= 2, 60)
        replicas[first].send_signal(signal.SIGSTOP)
        wait_until(lambda: leader(everybody - {first}) is not None, 60)
        second = leader(everybody - {first})
        assert second is not None
        replicas[first].send_signal(signal.SIGCONT)
        wait_until(lambda: "another replica leads now" in logs[first].read_text(), 60)
        _more(server.url, 2)
        server.kill_and_start()
        _more(server.url, 2)
        second = leader(everybody)
        assert second is not None
        replicas[second].kill()
        _more(server.url, 4)
        assert leader(everybody - {second}) is not None
    finally:
        for replica in replicas:
            replica.send_signal(signal.SIGCONT)
            replica.terminate()
            replica.communicate(timeout=60)
    _each_second_once(_published(server.url))
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_catches_up_from_the_bucket(server: NatsServer, tmp_path: Path) -> None:
    """Stopped and started again, a replica sends what came due meanwhile; --explain knows what the bucket says."""
    (tmp_path / "rules.toml").write_text(_RULES)
    args = ["cron", "rules.toml", "--bus", server.url, "--state", f"{server.url}/cron"]
    codes = []
    for _ in range(2):
        replica = start("taskmaster", *args, cwd=tmp_path)
        _more(server.url, 2)
        replica.terminate()
        replica.communicate(timeout=60)
        codes.append(replica.returncode)
        told = taskbus(
            "taskmaster", "cron", "rules.toml", "--state", f"{server.url}/cron", "--explain=-1", cwd=tmp_path
        )
        assert told.code == 0, told
    assert codes == [0, 0]
    _each_second_once(_published(server.url))


@pytest.mark.parametrize(
    ("state", "code", "told"),
    [
        ("nats://127.0.0.1:1/cron?timeout=300ms", 1, "the state cannot be used: nats at 127.0.0.1:1"),
        ("nats://127.0.0.1:1", 2, "name a bucket"),
        ("nats://u:canary@127.0.0.1:1/cron?timeot=1", 2, "no option 'timeot'; did you mean 'timeout'?"),
        ("nats:", 2, "name a bucket"),
    ],
)
def test_a_state_that_cannot_be_used(state: str, code: int, told: str, tmp_path: Path) -> None:
    """A server that is not there, or a URL that names no bucket, is told in a sentence, without a password."""
    (tmp_path / "rules.toml").write_text(_RULES)
    result = taskbus("taskmaster", "cron", "rules.toml", "--bus", "memory:", "--state", state, cwd=tmp_path)
    assert result.code == code
    assert told in result.err
    assert "Traceback" not in result.err
    assert "canary" not in result.err
