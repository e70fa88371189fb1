"""A worker killed with ``kill -9`` at random moments, on whatever bus, and what came of it.

The oracle is a ledger outside the bus: the worker appends the task's id to a file the moment it does the task. The seed
is printed.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import orjson

import bus
from task import Task, encode

__all__ = ["Kills", "done_tasks", "executed", "kill_workers", "start_worker"]

_WORKER = """
import os, time
from task import Context, Outcome, Worker, complete, run

LEDGER = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Noted(Worker):
    type = "noted"

    def do_task(self, ctx: Context) -> Outcome:
        os.write(LEDGER, f"{self.task.id}\\n".encode())
        time.sleep(PAUSE)
        return complete()


run(Noted)
"""


class Kills(NamedTuple):
    """How often a worker was killed, how often a task was done again, and how often one was reported again."""

    kills: int
    done_twice: int
    reported_twice: int


def kill_workers(folder: Path, url: str, *, most: int, tasks: int) -> Kills:
    """Kill the worker up to ``most`` times while there is work, then let one finish.

    Fails unless every task was done and reported, there were kills enough to tell, and no more was done twice than
    there were kills.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    ids = [f"{number:06d}" for number in range(tasks)]
    asyncio.run(_send(url, ids))

    kills = 0
    while kills < most and asyncio.run(_pending(url, folder, tasks)):
        worker = start_worker(folder, url)
        time.sleep(dice.uniform(0.0, 0.06))
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        kills += 1
    last = start_worker(folder, url, "--drain")
    last.communicate(timeout=600)
    assert last.returncode == 0

    ran = executed(folder)
    done = asyncio.run(done_tasks(url))
    found = Kills(kills, ran.total() - len(ran), done.total() - len(done))
    print(f"{tasks} tasks: {found}")

    assert set(ran) == set(ids)
    assert set(done) == set(ids)
    assert kills > most // 2
    assert found.done_twice <= kills
    return found


def start_worker(folder: Path, url: str, *more: str, pause: float = 0.0002) -> subprocess.Popen[str]:
    """A worker of type ``noted`` that notes what it does in ``folder``, ``pause`` seconds each; once it works."""
    (folder / "noted.py").write_text(_WORKER.replace("PAUSE", str(pause)))
    command = [sys.executable, "noted.py", "--bus", url, "--log-format", "json", *more]
    worker = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    for line in worker.stderr:
        if '"event":"started"' in line:
            return worker
    raise AssertionError(f"the worker ended with {worker.wait()}")


def executed(folder: Path) -> Counter[str]:
    """How often each id was done by the workers in ``folder``."""
    ledger = folder / "ledger"
    return Counter(ledger.read_text().split()) if ledger.exists() else Counter()


async def _send(url: str, ids: list[str]) -> None:
    async with bus.connect(url) as b, await b.producer() as producer:
        await producer.publish_many([bus.Message("noted", encode(Task("noted", id=id))) for id in ids])


async def _pending(url: str, folder: Path, tasks: int) -> bool:
    """Whether there is work. What a bus does not tell is told by what was not yet done."""
    async with bus.connect(url) as b:
        if b.capabilities.depth:
            return (await b.depth("noted", "noted")).total > 0
    return len(executed(folder)) < tasks


async def done_tasks(url: str) -> Counter[str]:
    """How often each id was reported, as far as group ``count`` has not read it before."""
    found: Counter[str] = Counter()
    async with bus.connect(url) as b, await b.consumer("done", "count") as consumer:
        while deliveries := await consumer.receive(1000, timeout=0.5):
            for delivery in deliveries:
                found[orjson.loads(delivery.body)["id"]] += 1
            await consumer.ack(deliveries)
    return found
