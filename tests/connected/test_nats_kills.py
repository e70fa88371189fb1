"""kill -9 of a worker on NATS at random moments: nothing is lost, and no more is done twice than there were kills.

The oracle is a ledger outside the bus: the worker appends the task's id to a file the moment it does the task. By
default a short form runs; ``TASKBUS_KILLS=200 TASKBUS_KILL_TASKS=20000`` runs the long one. The seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

pytest.importorskip("nats")

import bus
from task import Task, encode
from tests.servers.nats import NatsServer

_KILLS = int(os.environ.get("TASKBUS_KILLS", "15"))
_TASKS = int(os.environ.get("TASKBUS_KILL_TASKS", "1500"))
_WORKER = """
import os, time
from task import Context, Outcome, Worker, complete, run

LEDGER = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Noted(Worker):
    type = "noted"

    def do_task(self, ctx: Context) -> Outcome:
        os.write(LEDGER, f"{self.task.id}\\n".encode())
        time.sleep(0.0002)
        return complete()


run(Noted)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills(tmp_path: Path) -> None:
    """Every task is done at least once, duplicates do not exceed the kills, and each is reported.

    A result may be reported twice: publishing it and acknowledging are two steps on this bus.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    (tmp_path / "noted.py").write_text(_WORKER)
    server = NatsServer(tmp_path)
    server.start()
    try:
        _run(tmp_path, dice, f"{server.url}?lease=1s")
    finally:
        server.stop()


def _run(tmp_path: Path, dice: random.Random, absolute: str) -> None:
    ids = [f"{number:06d}" for number in range(_TASKS)]
    asyncio.run(_send(absolute, ids))

    kills = 0
    while kills < _KILLS and asyncio.run(_pending(absolute)):
        worker = _start(tmp_path, absolute)
        _await_working(worker)
        time.sleep(dice.uniform(0.0, 0.06))
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        kills += 1
    last = _start(tmp_path, absolute, "--drain")
    last.communicate(timeout=600)
    assert last.returncode == 0

    executed = Counter((tmp_path / "ledger").read_text().split())
    duplicates = sum(executed.values()) - len(executed)
    done = asyncio.run(_done(absolute))
    print(f"{kills} kills, {_TASKS} tasks, {duplicates} done twice, {done.total() - len(done)} reported twice")

    assert set(executed) == set(ids)
    assert set(done) == set(ids)
    assert kills > _KILLS // 2
    assert duplicates <= kills


def _start(folder: Path, url: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "noted.py", "--bus", url, "--log-format", "json", *more]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def _await_working(worker: subprocess.Popen[str]) -> None:
    assert worker.stderr is not None
    for line in worker.stderr:
        if '"event":"started"' in line:
            return
    raise AssertionError(f"the worker ended with {worker.wait()}")


async def _send(url: str, ids: list[str]) -> None:
    async with bus.connect(url) as b, await b.producer() as producer:
        await producer.publish_many([bus.Message("noted", encode(Task("noted", id=id))) for id in ids])


async def _pending(url: str) -> int:
    async with bus.connect(url) as b:
        return (await b.depth("noted", "noted")).total


async def _done(url: str) -> Counter[str]:
    found: Counter[str] = Counter()
    async with bus.connect(url) as b, await b.consumer("done", "count") as consumer:
        while deliveries := await consumer.receive(1000, timeout=0.5):
            for delivery in deliveries:
                found[orjson.loads(delivery.body)["id"]] += 1
            await consumer.ack(deliveries)
    return found
