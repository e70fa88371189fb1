"""What every benchmark needs: inputs, child processes and their use of time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

__all__ = [
    "Line",
    "Run",
    "Watch",
    "rss_mb",
    "run_child",
    "run_worker",
    "sized_line",
    "stopped",
    "task_line",
    "write_tasks",
]

#: Makes the task of a number.
Line = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Run:
    """One process, or loop: wall seconds, CPU seconds, its largest memory in MB.

    ``work`` is the part of the wall seconds from the first delivery to the last settlement: without start and end.
    """

    seconds: float
    cpu: float
    peak_mb: float
    work: float = 0.0


def task_line(number: int) -> bytes:
    """One no-op task, of the size tasks commonly have."""
    return (
        b'{"type":"noop","task":"s3://bucket/2017/01/01/%08d.json","created":"2017-10-28T15:42:07.8Z","id":"%032d"}'
        % (number, number)
    )


def sized_line(size: int) -> Line:
    """Makes no-op tasks of ``size`` bytes each, 60 at least."""
    return lambda number: (b'{"type":"noop","id":"%08d","task":"' % number).ljust(size - 2, b"x") + b'"}'


def write_tasks(path: Path, count: int, line: Line = task_line) -> None:
    """A file of ``count`` no-op tasks."""
    with path.open("wb") as file:
        for number in range(count):
            file.write(line(number) + b"\n")


def run_worker(args: Sequence[str], folder: Path) -> Run:
    """Run ``taskbus worker noop`` to its end, in ``folder``.

    Raises:
        RuntimeError: if it does not exit with 0.
    """
    command = [sys.executable, "-m", "apps.cli.main", "worker", "noop", "--log-format", "json", *args]
    with tempfile.TemporaryFile("w+", dir=folder) as log:
        run = run_child(command, folder, log)
        return replace(run, work=stopped(log))


def stopped(log: IO[str]) -> float:
    """Seconds from the first delivery to the last settlement, as a worker that has ended wrote into its JSON log."""
    log.seek(0)
    events = [json.loads(line) for line in log]
    return float(next(event["elapsed"] for event in events if event.get("event") == "stopped"))


class Watch:
    """Measures a bare loop in this process, from now on."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def run(self) -> Run:
        """What it took until now."""
        seconds = time.perf_counter() - self._began
        return Run(seconds, time.process_time() - self._cpu, 0.0, seconds)


def run_child(command: Sequence[str], folder: Path, errors: IO[str] | None = None) -> Run:
    """Run ``command`` to its end, in ``folder``, stderr to ``errors``. Raises as :func:`run_worker`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=errors)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def rss_mb(pid: int) -> float:
    """Memory a process occupies now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmRSS")
