"""What is measured for each plot. Each takes a folder of its own and returns its lines by name."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.drains import bare_file_loop, bus_worker, file_worker
from benchmarks.measure import Line, Run, sized_line, task_line, write_tasks
from benchmarks.processes import bare_processes, drain_processes, prepare
from benchmarks.servers import new_bus

__all__ = ["LENGTHS", "PROCESSES", "SIZES", "Lines", "by_processes", "by_queue", "by_size"]

#: Points by the name of their line.
Lines = dict[str, list[tuple[float, float]]]
#: Bytes of a task; worker processes; tasks queued.
SIZES = (100, 1024, 4096, 16384, 65536)
PROCESSES = (1, 2, 4)
LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
#: Bytes and tasks of one drain, at most.
_BYTES, _TASKS = 48 * 1024**2, 40_000
#: How often a short queue is emptied.
_REPEATS = {1_000: 5, 10_000: 5}
#: Shortest queue of which it is told what a task costs.
_COSTS = 10_000
#: Longest queue on a broker.
_BROKER = 100_000
#: Tasks without work and with a millisecond of it, for several processes.
_NOTHING, _BURN = 60_000, 4_000
_numbers = itertools.count()


def by_size(folder: Path) -> Lines:
    """Tasks per second from the first delivery to the last settlement, the better of two drains."""
    found: Lines = {}
    for size in SIZES:
        count, line = min(_BYTES // size, _TASKS), sized_line(size)
        source = folder / "in.jsonl"
        write_tasks(source, count, line)
        drains: dict[str, Callable[[], Run]] = {
            "bare loop, file to file": lambda: bare_file_loop(folder / "in.jsonl", folder / "bare.jsonl"),
            **{name: _drain(name, folder, count, line) for name in ("file to file", "sqlite", "nats")},
        }
        for name, drain in drains.items():
            seconds = min(drain().work for _ in range(2))
            found.setdefault(name, []).append((size, count / seconds))
    return found


def by_processes(folder: Path) -> Lines:
    """How many times as fast as one, from the first task's start to the last one's end, the better of two drains."""
    prepare(folder)

    def worker(name: str, count: int, kind: str, processes: int) -> float:
        with _bus(name, folder) as url:
            return drain_processes(url, folder, count, processes, kind)

    measures: dict[str, Callable[[int], float]] = {
        "bare loops, 1 ms": lambda processes: bare_processes(_BURN, processes),
        "sqlite, 1 ms": lambda processes: worker("sqlite", _BURN, "burn", processes),
        "nats, 1 ms": lambda processes: worker("nats", _BURN, "burn", processes),
        "sqlite, no-op": lambda processes: worker("sqlite", _NOTHING, "nothing", processes),
        "nats, no-op": lambda processes: worker("nats", _NOTHING, "nothing", processes),
    }
    found: Lines = {}
    for name, measure in measures.items():
        seconds = [min(measure(processes) for _ in range(2)) for processes in PROCESSES]
        found[name] = [(processes, seconds[0] / each) for processes, each in zip(PROCESSES, seconds, strict=True)]
    return found


def by_queue(folder: Path) -> tuple[Lines, Lines]:
    """CPU microseconds per task beyond what one task costs with start and end, and the largest memory in MB: medians.

    A start differs from the next by some 20 ms of CPU, which is more than a thousand tasks cost: they have no point.
    """
    cost: Lines = {}
    memory: Lines = {}
    for name in ("file to file", "sqlite", "nats", "file"):
        start = statistics.median(_queue(name, folder, 1).cpu for _ in range(5))
        for length in LENGTHS:
            if name == "nats" and length > _BROKER:
                continue
            runs = [_queue(name, folder, length) for _ in range(_REPEATS.get(length, 1))]
            if length >= _COSTS:
                cpu = statistics.median(run.cpu for run in runs)
                cost.setdefault(name, []).append((length, (cpu - start) / (length - 1) * 1e6))
            memory.setdefault(name, []).append((length, statistics.median(run.peak_mb for run in runs)))
    return cost, memory


def _queue(name: str, folder: Path, count: int) -> Run:
    if name == "file to file":
        write_tasks(folder / "in.jsonl", count)
    return _drain(name, folder, count, task_line)()


def _drain(name: str, folder: Path, count: int, line: Line) -> Callable[[], Run]:
    def drain() -> Run:
        if name == "file to file":
            return file_worker(folder / "in.jsonl", folder, count)
        with _bus(name, folder) as url:
            return bus_worker(url, folder, count, line)

    return drain


@contextmanager
def _bus(name: str, folder: Path) -> Iterator[str]:
    """The URL of a new one."""
    os.environ["TASKBUS_SERVERS"] = "1"
    place = folder / f"{name}-{next(_numbers)}"
    place.mkdir()
    with ExitStack() as stack:
        yield new_bus(name, stack, place)
