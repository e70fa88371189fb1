"""Worker processes with a duplicate guard, killed with ``kill -9`` and frozen, and what came of it.

The oracle is a ledger outside the bus and the store: each worker appends a line when the user's function begins for a
value and when it ends, with the time by a clock that all processes share. The seed is printed.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import orjson

import bus
from task import Task, encode
from tests.helpers import wait_until
from tests.taskbus_command import environment

__all__ = ["freeze_a_worker", "kill_guarded_workers"]

#: Seconds. A worker that is starved for longer than a fifth of it would lose its claim.
_LEASE = 3.0

_WORKER = """
import os, sys, time
from task import Context, Outcome, Worker, complete, run

LEDGER = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(value, what):
    os.write(LEDGER, f"{value} {what} {os.getpid()} {time.monotonic_ns()}\\n".encode())


class Guarded(Worker):
    type = "guarded"

    def do_task(self, ctx: Context) -> Outcome:
        note(self.task.value, "begin")
        time.sleep(0.05)
        while os.path.exists("hold"):
            time.sleep(0.01)
        note(self.task.value, "end")
        return complete(f"by {os.getpid()}")


run(Guarded)
"""


class _Run(NamedTuple):
    """One call of the user's function. ``ended`` says whether it returned, or its process was killed."""

    begin: int
    end: int
    ended: bool


def kill_guarded_workers(folder: Path, url: str, guard: str, *, kills: int, values: int, copies: int) -> None:
    """Four processes do ``copies`` tasks of each of ``values`` values while one after the other is killed.

    Fails unless the function ran for no value twice at a time, every task was reported once, and no value was done
    again within the window more often than there were kills: one may come between the end and the store.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    (folder / "guarded.py").write_text(_WORKER)
    tasks = [Task("guarded", f"v{n}", id=f"{n}-{copy}") for n in range(values) for copy in range(copies)]
    dice.shuffle(tasks)
    asyncio.run(_send(url, tasks))

    deaths: dict[int, int] = {}
    # So that the first kill meets a task, whatever the machine is busy with.
    hold = folder / "hold"
    hold.touch()
    workers = [_start(folder, url, guard) for _ in range(4)]
    try:
        for kill in range(kills):
            begun = _lines(folder)
            wait_until(lambda begun=begun: _lines(folder) > begun or _done(folder, url) >= len(tasks), 60)  # type: ignore[misc]
            time.sleep(dice.uniform(0.0, 0.1))  # any moment will do, so there is none to wait for
            begun_by = _last_begun(folder)
            victim = next((worker for worker in workers if worker.pid == begun_by), workers[kill % len(workers)])
            victim.kill()
            victim.wait(60)
            deaths[victim.pid] = time.monotonic_ns()
            hold.unlink(missing_ok=True)
            workers[workers.index(victim)] = _start(folder, url, guard)
        wait_until(lambda: _done(folder, url) >= len(tasks), 120)
    finally:
        for worker in workers:
            worker.terminate()
        codes = [worker.wait(60) for worker in workers]
    # One that was started last may not have got as far as to catch the signal.
    assert set(codes) <= {0, -signal.SIGTERM}
    assert 0 in codes

    again = interrupted = 0
    for value, runs in _ledger(folder, deaths).items():
        for before, after in pairwise(runs):
            assert after.begin >= before.end, f"{value} ran twice at a time"
        ended = sum(run.ended for run in runs)
        assert ended >= 1, value
        again += ended - 1
        interrupted += len(runs) - ended
    reported = asyncio.run(_reported(url, "check"))
    print(f"{len(tasks)} tasks of {values} values, {kills} kills: cut short {interrupted}, done again {again}")
    assert sorted(done["id"] for done in reported) == sorted(task.id or "" for task in tasks)
    assert {done["result"] for done in reported} == {"complete"}
    assert again <= kills
    assert interrupted >= 1, "no kill hit a task"


def freeze_a_worker(folder: Path, url: str, guard: str) -> None:
    """A worker frozen in the midst of a task for longer than its leases finds, on going on, that another has done it.

    Fails unless each task was reported once, and as the other did it.
    """
    (folder / "guarded.py").write_text(_WORKER)
    (folder / "hold").touch()
    zombie = _start(folder, url, guard, "zombie.log")
    heir = None
    try:
        asyncio.run(_send(url, [Task("guarded", "v", id="first")]))
        wait_until(lambda: _lines(folder) == 1, 60)
        zombie.send_signal(signal.SIGSTOP)
        (folder / "hold").unlink()
        heir = _start(folder, url, guard, "heir.log")
        asyncio.run(_send(url, [Task("guarded", "v", id="second")]))
        wait_until(lambda: _done(folder, url) >= 2, 60)
        zombie.send_signal(signal.SIGCONT)
        # It ends what it was doing, and nobody hears of it.
        wait_until(lambda: f"end {zombie.pid}" in (folder / "ledger").read_text(), 60)
        lost = ('"event":"guard-lost"', '"event":"lease-lost"')
        wait_until(lambda: any(event in (folder / "zombie.log").read_text() for event in lost), 60)
    finally:
        for worker in (zombie, heir):
            if worker is not None:
                worker.send_signal(signal.SIGCONT)
                worker.terminate()
                worker.wait(60)
    reported = asyncio.run(_reported(url, "check"))
    assert sorted(done["id"] for done in reported) == ["first", "second"]
    assert {done["msg"] for done in reported} == {f"by {heir.pid}"}


def _start(folder: Path, url: str, guard: str, log: str = "log") -> subprocess.Popen[bytes]:
    command = [sys.executable, "guarded.py", "--bus", url, "--guard", guard, "--guard-window", "10m"]
    command += ["--guard-lease", f"{_LEASE:g}s", "--max-in-progress", "2", "--log-format", "json"]
    with (folder / log).open("ab") as err:
        return subprocess.Popen(command, cwd=folder, env=environment(), stderr=err)


def _lines(folder: Path) -> int:
    ledger = folder / "ledger"
    return len(ledger.read_bytes().splitlines()) if ledger.exists() else 0


def _last_begun(folder: Path) -> int | None:
    """The process that began a task last."""
    lines = (folder / "ledger").read_text().splitlines()
    return next((int(line.split()[2]) for line in reversed(lines) if " begin " in line), None)


def _ledger(folder: Path, deaths: dict[int, int]) -> dict[str, list[_Run]]:
    """Every call of the function, by value, in the order of their beginnings."""
    runs: defaultdict[str, list[_Run]] = defaultdict(list)
    open_runs: dict[tuple[str, int], int] = {}
    for line in (folder / "ledger").read_text().splitlines():
        value, what, process, when = line.split()
        key = (value, int(process))
        if what == "begin":
            assert key not in open_runs, f"{value} began twice in one process"
            open_runs[key] = int(when)
        else:
            runs[value].append(_Run(open_runs.pop(key), int(when), ended=True))
    for (value, pid), begin in open_runs.items():
        runs[value].append(_Run(begin, deaths[pid], ended=False))
    return {value: sorted(some) for value, some in runs.items()}


async def _send(url: str, tasks: list[Task]) -> None:
    async with bus.connect(url) as b, await b.producer() as producer:
        await producer.publish_many([bus.Message("guarded", encode(task)) for task in tasks])


def _done(folder: Path, url: str) -> int:
    """How many results are there."""

    async def look() -> int:
        async with bus.connect(url) as b:
            return (await b.depth("done", "check")).total

    return asyncio.run(look())


async def _reported(url: str, group: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with bus.connect(url) as b, await b.consumer("done", group) as consumer:
        while deliveries := await consumer.receive(1000, timeout=0.5):
            found += [orjson.loads(delivery.body) for delivery in deliveries]
            await consumer.ack(deliveries)
    return found
