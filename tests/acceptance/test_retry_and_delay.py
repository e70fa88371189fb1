"""The retry and delay taskmasters as real processes: stopped, edited, with many tasks waiting."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bus import connect
from task import Task, encode
from tests.acceptance.support import pending, publish
from tests.helpers import catches, wait_until
from tests.taskbus_command import start, taskbus

RULES = """
[[rule]]
match = { type = "flaky" }
retries = 3
delay = "100ms"
backoff = "fibonacci"
jitter = 0.5
"""


@contextmanager
def running(*args: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process at work, whose stderr is the file ``log``; asked to, it must end in order."""
    with (cwd / "log").open("ab") as log:
        process = start(*args, "--log-format", "json", cwd=cwd, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield process
        wait_until(lambda: catches(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, (cwd / "log").read_text()
    finally:
        process.kill()
        process.wait()


def read(url: str, topic: str, group: str) -> list[dict[str, Any]]:
    """What came to a topic since this group read it last."""

    async def take() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with connect(url) as bus, await bus.consumer(topic, group) as consumer:
            while batch := await consumer.receive(1000, timeout=0.05):
                await consumer.ack(batch)
                found += [json.loads(delivery.body) for delivery in batch]
        return found

    return asyncio.run(take())


def next_in(url: str, *topics: str) -> tuple[str, dict[str, Any]]:
    """Wait for a message in one of these topics; the topic and the message."""
    found: list[tuple[str, dict[str, Any]]] = []

    def look() -> bool:
        for topic in topics:
            found.extend((topic, message) for message in read(url, topic, "watch"))
        return bool(found)

    wait_until(look)
    (one,) = found
    return one


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_wait_in_little_memory(tmp_path: Path) -> None:
    """With 120,000 tasks waiting it has the memory it had with 20,000; a restart keeps them all."""
    url = f"sqlite:{tmp_path}/work.db"
    args = ("taskmaster", "delay", "--bus", url, "--state", "state.db")
    later = (datetime.now(UTC) + timedelta(days=400)).isoformat()

    def resident(pid: int) -> float:
        """Megabytes."""
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def fill(first: int, last: int) -> None:
        lines = [encode(Task("t", "x" * 100, id=str(n), meta={"run_at": later})) for n in range(first, last)]
        publish(url, *lines, topic="delay")

    with running(*args, cwd=tmp_path) as process:
        fill(0, 20_000)
        wait_until(lambda: pending(url, "delay", "delay").total == 0, 60)
        before = resident(process.pid)
        fill(20_000, 120_000)
        wait_until(lambda: pending(url, "delay", "delay").total == 0, 120)
        after = resident(process.pid)
    print(f"{before:.1f} MB with 20,000 waiting, {after:.1f} MB with 120,000")
    assert after < before + 10

    with running(*args, cwd=tmp_path):
        wait_until(lambda: (tmp_path / "log").read_text().count('"event":"started"') == 2)
    assert '"waiting":120000' in (tmp_path / "log").read_text().splitlines()[-2]


def test_retries_wait_through_a_restart(tmp_path: Path) -> None:
    """Stopped while tasks wait, and started again, it sends them: nothing is in its memory alone."""
    url = f"sqlite:{tmp_path}/work.db"
    (tmp_path / "rules.toml").write_text(RULES.replace("100ms", "1s").replace("0.5", "0"))
    done = Task("flaky", "v", id="i", job="j", meta={"a": "b"}).replace(result="error", msg="broke")
    publish(url, done, topic="done")
    args = ("taskmaster", "retry", "rules.toml", "--bus", url, "--state", "state.db")
    with running(*args, cwd=tmp_path):
        wait_until(lambda: pending(url, "done", "retry").total == 0 and (tmp_path / "state.db").exists())
    assert read(url, "flaky", "watch") == []
    with running(*args, cwd=tmp_path):
        _, task = next_in(url, "flaky")
    assert (task["id"], task["job"], task["meta"]) == ("i", "j", {"a": "b", "retry": "1"})


def test_changed_rules(tmp_path: Path) -> None:
    """Changed rules are taken while it runs; wrong ones are told and the old ones stay."""
    url = f"sqlite:{tmp_path}/work.db"
    path = tmp_path / "rules.toml"
    path.write_text(RULES)

    def log(event: str) -> int:
        return (tmp_path / "log").read_text().count(f'"event":"{event}"')

    def replace(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").rename(path)

    def fail(id: str) -> str:
        """The topic of what becomes of a failed task."""
        publish(url, Task("flaky", id=id).replace(result="error", msg="m"), topic="done")
        return next_in(url, "flaky", "other")[0]

    with running("taskmaster", "retry", "rules.toml", "--bus", url, "--state", "state.db", cwd=tmp_path):
        wait_until(lambda: log("started"))
        assert fail("a") == "flaky"
        replace(RULES + 'topic = "done"\n')
        wait_until(lambda: log("rules-refused"))
        assert fail("b") == "flaky"
        replace(RULES + 'topic = "other"\n')
        wait_until(lambda: log("rules-reloaded"))
        assert fail("c") == "other"


def test_dry_run_and_check(tmp_path: Path) -> None:
    """--dry-run prints what would be sent for a file of done tasks, and makes nothing; --check explains."""
    (tmp_path / "rules.toml").write_text(RULES)
    lines = [
        encode(Task("flaky", "v", id="1").replace(result="error", msg="m")),
        encode(Task("flaky", "v", id="2", meta={"retry": "3"}).replace(result="error", msg="m")),
        encode(Task("flaky", "v", id="3").replace(result="alert", msg="m")),
    ]
    before = [path.name for path in tmp_path.iterdir()]
    args = ("taskmaster", "retry", "rules.toml")
    result = taskbus(*args, "--dry-run", "--in", "-", cwd=tmp_path, stdin=b"\n".join(lines))
    assert result.code == 0, result
    assert [(line["id"], line.get("meta", {}).get("retry"), "dead" in line) for line in result.tasks] == [
        ("2", None, True), ("2", "3", False), ("1", "1", False)
    ]  # fmt: skip
    wrong = taskbus(*args, "--dry-run", "--in", "-", cwd=tmp_path, stdin=b"rubbish\n")
    assert (wrong.code, wrong.out) == (1, "")
    assert "not JSON" in wrong.err
    check = taskbus(*args, "--check", cwd=tmp_path)
    assert "retries: at most 3 times" in check.out
    assert [path.name for path in tmp_path.iterdir()] == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--dry-run"], "--dry-run reads done tasks from --in PATH"),
        (["--dry-run", "--in", "memory:x"], "--dry-run reads done tasks from --in PATH"),
        (["--in", "x"], "--in is for --dry-run"),
        (["--failed-topic", "done"], "--failed-topic done: the done tasks are received from there too"),
        (["--dead-topic", "done"], "--dead-topic done: the done tasks are received from there too"),
        (["--topic", "flaky"], "rule flaky sends to the topic flaky, where no worker"),
        (["--topic", "a b"], "'a b' is not a topic name"),
        (["--state", "oracle://x"], "state cannot be kept in oracle"),
    ],
)
def test_wrong_use(tmp_path: Path, args: list[str], said: str) -> None:
    """What cannot be done gives exit code 2 and a sentence, and makes nothing."""
    (tmp_path / "rules.toml").write_text(RULES + 'topic = "flaky"\n')
    result = taskbus("taskmaster", "retry", "rules.toml", *args, cwd=tmp_path)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["rules.toml"]
