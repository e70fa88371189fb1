"""Workers and commands on Kafka, as docs/buses/kafka.md shows them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")

from tests.helpers import wait_until
from tests.servers.kafka import KafkaServer
from tests.taskbus_command import environment, start, taskbus

_SLOW = """
import os, time
from task import Context, Outcome, Worker, complete, run

class Slow(Worker):
    type = "slow"

    def do_task(self, ctx: Context) -> Outcome:
        with open("ran", "a") as file:
            file.write(f"{os.getpid()} {self.task.value}\\n")
        until = time.monotonic() + float(self.task.value)
        while time.monotonic() < until and not ctx.cancelled:
            time.sleep(0.01)
        with open("ended", "a") as file:
            file.write(f"{os.getpid()} {'cancelled' if ctx.cancelled else 'done'}\\n")
        return complete()

run(Slow)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker for all tests."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


def test_the_commands(server: KafkaServer, tmp_path: Path) -> None:
    """A worker, ``send --wait``, ``depth``, ``peek``, ``topics``, dead letters and ``buses`` work on Kafka."""
    env = {"TASKBUS_BUS": f"{server.url}?session=2s", "TASKBUS_LOG_LEVEL": "error"}
    for value in ("1", "2"):
        taskbus("send", "hello-world", value, cwd=tmp_path, env=env)
    (depth,) = taskbus("depth", "hello-world", "--group", "hello-world", cwd=tmp_path, env=env).tasks
    assert depth["total"] == 2
    assert len(taskbus("peek", "hello-world", cwd=tmp_path, env=env).tasks) == 2
    worker = start("worker", "hello-world", cwd=tmp_path, env=env)
    try:
        sent = taskbus("send", "hello-world", "world", "--wait", "--timeout", "30s", cwd=tmp_path, env=env)
        assert sent.code == 0, sent
        assert [task["msg"] for task in sent.tasks] == ["hello world"]
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    assert worker.returncode == 0
    (tmp_path / "odd.jsonl").write_text('{"type":"hello-world","task":5}\n')
    pipe = ["pipe", "--from", "lines:odd.jsonl", "--to", env["TASKBUS_BUS"], "--topic", "hello-world"]
    taskbus(*pipe, cwd=tmp_path, env=env)
    drained = taskbus("worker", "hello-world", "--drain", cwd=tmp_path, env=env)
    assert drained.code == 0, drained
    (dead,) = taskbus("peek", "hello-world.dead", cwd=tmp_path, env=env).tasks
    assert dead["code"] == "bad-field"
    tail = taskbus("tail", "hello-world.dead", "--from-start", "--limit", "1", cwd=tmp_path, env=env)
    assert len(tail.tasks) == 1
    topics = taskbus("topics", cwd=tmp_path, env=env)
    assert {"hello-world", "done", "hello-world.dead"} <= set(topics.out.split())
    assert "retry" not in topics.out
    assert "kafka" in {each["scheme"] for each in taskbus("buses", cwd=tmp_path).tasks}


def test_a_long_task_survives_a_joining_worker(server: KafkaServer, tmp_path: Path) -> None:
    """A task that runs when others join ends where it began; one that outlasts ``handover`` is cancelled there."""
    (tmp_path / "slow.py").write_text(_SLOW)
    for name, seconds, handover, expected in (("ends", "4", "20s", ["done"]), ("moves", "600", "500ms", ["cancelled"])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "slow.py").write_text(_SLOW)
        url = f"{server.url}?partitions=1&session=2s&handover={handover}"
        more = ["--bus", url, "--topic", f"slow-{name}", "--group", "g", "--log-level", "error"]
        command = [sys.executable, "slow.py", *more]
        taskbus("send", "slow", seconds, "--topic", f"slow-{name}", "--bus", url, cwd=folder)
        workers = [subprocess.Popen(command, cwd=folder, env=environment() | {"PYTHONPATH": sys.path[0]})]
        try:
            wait_until((folder / "ran").exists, 30)
            workers += [subprocess.Popen(command, cwd=folder, env=environment()) for _ in range(2)]
            wait_until((folder / "ended").exists, 30)
            first = workers[0].pid
            assert (folder / "ended").read_text().splitlines()[0] == f"{first} {expected[0]}"
            if name == "moves":
                wait_until(partial(_has_lines, folder / "ran", 2), 30)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        if name == "ends":
            assert len((folder / "ran").read_text().splitlines()) == 1


def test_an_idle_worker_costs_nothing_and_wakes_at_once(server: KafkaServer, tmp_path: Path) -> None:
    """An idle worker takes less than 3 % of a processor, and a task after seconds of idling is begun within one."""
    env = {"TASKBUS_BUS": f"{server.url}?session=6s", "TASKBUS_LOG_LEVEL": "error"}
    worker = start("worker", "hello-world", cwd=tmp_path, env=env)
    try:
        taskbus("send", "hello-world", "first", "--wait", "--timeout", "30s", cwd=tmp_path, env=env)
        ticks = _ticks(worker.pid)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 6.0)
        assert (_ticks(worker.pid) - ticks) / 100 / 6.0 < 0.03
        sent = taskbus("send", "hello-world", "second", "--wait", "--timeout", "30s", cwd=tmp_path, env=env)
        (done,) = sent.tasks
        assert done["msg"] == "hello second"
        created, began_at = (datetime.fromisoformat(done[key]) for key in ("created", "started"))
        assert (began_at - created).total_seconds() < 1.0
    finally:
        worker.kill()
        worker.communicate()


def _has_lines(file: Path, count: int) -> bool:
    return len(file.read_text().splitlines()) == count


def _ticks(pid: int) -> int:
    """Hundredths of a second of processor time used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
