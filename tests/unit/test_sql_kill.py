"""Processes using a sqlite bus, killed with SIGKILL at random moments: nothing lost, nothing damaged."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import bus
from bus import Message
from tests.helpers import wait_until

#: Publishes batches for ever and says which were confirmed.
_PUBLISH = """
import asyncio, itertools, sys
import bus
from bus import Message
async def main(url, name):
    async with bus.connect(url) as b:
        producer = await b.producer()
        for number in itertools.count():
            await producer.publish_many([Message("t", b"%s-%d-%d" % (name.encode(), number, n)) for n in range(7)])
            print(number, flush=True)
asyncio.run(main(*sys.argv[1:]))
"""
#: Does tasks for ever: the result has the body of the task. Says that it has begun.
_WORK = """
import asyncio, sys
import bus
from bus import Message
async def main(url):
    async with bus.connect(url) as b:
        producer, consumer = await b.producer(), await b.consumer("t", "g")
        print("begun", flush=True)
        while True:
            batch = await consumer.receive(5)
            await consumer.finish(batch, [Message("done", delivery.body) for delivery in batch], producer)
asyncio.run(main(*sys.argv[1:]))
"""


def start(script: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *args], stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> str:
    """Kill it; returns what it had printed."""
    process.kill()
    printed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return printed


def check_integrity(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def drain(url: str, topic: str) -> list[bytes]:
    async with bus.connect(url) as b, await b.consumer(topic, "reader") as consumer:
        taken: list[bytes] = []
        while batch := await consumer.receive(500, timeout=0):
            taken += [delivery.body for delivery in batch]
            await consumer.ack(batch)
        return taken


@pytest.mark.slow
def test_publishers_killed_at_random_moments(tmp_path: Path) -> None:
    """Every confirmed batch is there, in order and once; of the one in the making all or nothing."""
    url, moments = f"sqlite:{tmp_path}/work.db", random.Random(1)
    confirmed: dict[str, int] = {}
    for life in range(10):
        process = start(_PUBLISH, url, f"p{life}")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.05))  # any moment will do, so there is none to wait for
        confirmed[f"p{life}"] = 1 + len([line for line in kill(process).splitlines() if line])
    check_integrity(tmp_path / "work.db")
    stored: dict[str, list[tuple[int, int]]] = {}
    for body in asyncio.run(drain(url, "t")):
        name, number, place = body.decode().split("-")
        stored.setdefault(name, []).append((int(number), int(place)))
    for name, count in confirmed.items():
        batches, rest = divmod(len(stored[name]), 7)
        assert rest == 0
        assert batches in (count, count + 1)
        assert stored[name] == [(number, place) for number in range(batches) for place in range(7)]


@pytest.mark.slow
def test_workers_killed_at_random_moments(tmp_path: Path) -> None:
    """Two workers at a time, killed over and over: finishing is atomic, so every task is done exactly once."""
    url, moments = f"sqlite:{tmp_path}/work.db?lease=300ms", random.Random(2)
    bodies = [b"%d" % number for number in range(30_000)]

    async def publish() -> None:
        async with bus.connect(url) as b:
            await (await b.producer()).publish_many([Message("t", body) for body in bodies])

    async def left() -> int:
        async with bus.connect(url) as b:
            return (await b.depth("t", "g")).total

    asyncio.run(publish())
    workers = [start(_WORK, url) for _ in range(2)]
    interrupted = 0
    for number in range(14):
        victim = workers[number % 2]
        assert victim.stdout is not None
        victim.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.1))  # any moment will do, so there is none to wait for
        kill(victim)
        interrupted += asyncio.run(left()) > 0
        workers[number % 2] = start(_WORK, url)
    assert interrupted >= 5, "all was done before much could be killed"
    wait_until(lambda: asyncio.run(left()) == 0, 60.0)
    for worker in workers:
        kill(worker)
    check_integrity(tmp_path / "work.db")
    done = Counter(asyncio.run(drain(url, "done")))
    assert done == Counter(bodies)
    connection = sqlite3.connect(tmp_path / "work.db")
    assert connection.execute("SELECT COUNT(*) FROM messages").fetchone() == (0,)
    assert connection.execute("SELECT COUNT(*) FROM deliveries").fetchone() == (0,)
    assert connection.execute("SELECT SUM(kept), SUM(pending) FROM topics, topic_groups").fetchone() == (0, 0)
    connection.close()
