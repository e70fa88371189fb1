"""What a second worker process brings: a drain of CPU-bound tasks with one process and with two.

Beside it what the machine gives: the same work as bare loops, with no bus between them, in one process and in two.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import bus
from task import Task, decode, encode

__all__ = ["NAMES", "Scaling", "bare_processes", "drain_processes", "prepare", "scaling"]

_BURN = """
def burn():
    total = 0
    for number in range(20_000):
        total += number * number
    return total
"""
_WORKER = (
    _BURN
    + """
from task import Worker, complete, run


class Mine(Worker):
    type = "{name}"

    def do_task(self, ctx):
        return {body}


if __name__ == "__main__":
    run(Mine)
"""
)
#: The workers: about a millisecond of CPU, and nothing.
NAMES = {"burn": "complete(str(burn()))", "nothing": "complete()"}
_ROOT = Path(__file__).parent.parent


class Scaling(NamedTuple):
    """How many times faster two processes are than one: bare loops, and workers draining a sqlite bus."""

    bare: float
    workers: float


def scaling(folder: Path, count: int = 6000, times: int = 2) -> Scaling:
    """Measure with ``count`` tasks of about a millisecond each.

    Each is done ``times`` times, in turns, and its shortest time counts: what else runs disturbs it least.
    """
    prepare(folder)

    def drain(count: int, processes: int) -> float:
        return drain_processes(f"sqlite:{folder}/burn-{time.monotonic_ns()}.db", folder, count, processes)

    rounds = [[measure(count, n) for measure in (bare_processes, drain) for n in (1, 2)] for _ in range(times)]
    bare, bares, one, two = (min(seconds) for seconds in zip(*rounds, strict=True))
    return Scaling(bare=bare / bares, workers=one / two)


def prepare(folder: Path) -> None:
    """Write the workers that :func:`drain_processes` runs."""
    for name, body in NAMES.items():
        (folder / f"{name}.py").write_text(_WORKER.format(name=name, body=body))


def bare_processes(count: int, processes: int) -> float:
    """Seconds until ``processes`` loops have done ``count`` pieces of CPU-bound work together."""
    code = f"{_BURN}\nfor _ in range({count // processes}): burn()"
    began = time.perf_counter()
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    if sum(abs(process.wait()) for process in running):
        raise RuntimeError("a bare loop failed")
    return time.perf_counter() - began


def drain_processes(url: str, folder: Path, count: int, processes: int, name: str = "burn") -> float:
    """Seconds that ``processes`` processes of the worker ``name`` take for ``count`` tasks, on a new bus.

    From the moment the first task began to that when the last was done: without starting them, as that is not what
    grows with the tasks, but with the time one of them works before the others do.
    """
    asyncio.run(_fill(url, count, name))
    command = [sys.executable, f"{name}.py", "--bus", url, "--drain", "--processes", str(processes)]
    subprocess.run(
        [*command, "--log-level", "warning"], cwd=folder, env={**os.environ, "PYTHONPATH": str(_ROOT)}, check=True
    )
    return asyncio.run(_took(url, count))


async def _fill(url: str, count: int, name: str) -> None:
    async with bus.connect(url) as connection, await connection.producer() as producer:
        tasks = [bus.Message(name, encode(Task(name, id=f"{number}"))) for number in range(count)]
        await producer.publish_many(tasks)


async def _took(url: str, count: int) -> float:
    """Seconds from the first start to the last end that done tasks tell. Raises RuntimeError if some are missing."""
    moments, found = list[datetime](), 0
    async with bus.connect(url) as connection, await connection.consumer("done", "count") as consumer:
        while found < count and (deliveries := await consumer.receive(1000, timeout=10.0)):
            found += len(deliveries)
            tasks = [decode(delivery.body) for delivery in deliveries]
            told = [moment for task in tasks for moment in (task.started, task.completed) if moment is not None]
            moments += (min(told), max(told))
            await consumer.ack(deliveries)
    if found != count:
        raise RuntimeError(f"{count} tasks went in and {found} done tasks came out")
    return (max(moments) - min(moments)).total_seconds()
