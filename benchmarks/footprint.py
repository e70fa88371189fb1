"""What starting, importing and idling cost."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import rss_mb
from benchmarks.servers import at_hand, new_bus

__all__ = ["Idle", "idle_workers", "import_seconds"]

_ROOT = Path(__file__).parent.parent
_TIMES = 5


class Idle(NamedTuple):
    """A worker with nothing to do: seconds until it was ready, and the memory in MB it then occupies."""

    bus: str
    ready: float
    memory: float


def import_seconds(statement: str, times: int = 11) -> float:
    """Median seconds ``statement`` costs a fresh interpreter, beyond what starting it costs."""
    with_it, without = list[float](), list[float]()
    for _ in range(times):
        with_it.append(_run(statement))
        without.append(_run("pass"))
    return statistics.median(with_it) - statistics.median(without)


def idle_workers(folder: Path) -> Iterator[Idle | str]:
    """One on each bus that is at hand, the median of five starts; or why there is none."""
    for name in ("sqlite", "file", "nats", "nsq", "kafka", "pubsub"):
        yield from at_hand(folder / name, partial(_idle_worker, name))


def _idle_worker(name: str, stack: ExitStack, folder: Path) -> Iterator[Idle]:
    url = new_bus(name, stack, folder)
    found = [_idle(url, folder) for _ in range(_TIMES)]
    yield Idle(name, *(statistics.median(values) for values in zip(*found, strict=True)))


def _idle(url: str, folder: Path) -> tuple[float, float]:
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-m", "apps.cli.main", "worker", "noop", "--bus", url]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        if process.stderr is None:
            raise RuntimeError("the worker has no stderr")
        for line in process.stderr:
            if re.search(r"\bworking\b", line):
                break
        else:
            raise RuntimeError(f"the worker on {url} ended before it was ready")
        ready = time.perf_counter() - began
        time.sleep(1.0)  # memory is measured when start-up is over, not while it happens
        return ready, rss_mb(process.pid)
    finally:
        process.terminate()
        process.communicate()


def _run(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, cwd=_ROOT)
    return time.perf_counter() - began
