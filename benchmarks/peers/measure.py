"""Measures one peer: how fast it sends and empties a queue, what that costs, and how soon it begins a lone task."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import rss_mb

__all__ = ["Peer", "measure"]

_ROOT = Path(__file__).parent.parent.parent
#: Tasks sent to an idle worker, and the seconds between them; one before, for which it may yet start, is not counted.
_LONE, _GAP = 200, 0.02
#: Seconds a worker has to begin its first task, and all of them.
_START, _ALL = 30.0, 90.0
#: Messages a peer fetches at once from a queue, where it can be told so.
_BATCH = 100
_TICKS = os.sysconf("SC_CLK_TCK")


class Peer(NamedTuple):
    """Tasks per second sent one by one and done; worker's CPU seconds per task; ms from sent to begun; idle MB."""

    sent: float
    done: float
    cpu: float
    p50: float
    p99: float
    memory: float


def measure(name: str, python: Path, url: str, folder: Path, count: int) -> Peer:
    """Module ``name`` in the environment of ``python``, on the server or file of ``url``, idle and then with ``count``.

    Seconds are those from the beginning of the first task to that of the last, and CPU is that of all its processes in
    this time.

    Raises:
        RuntimeError: what it said when it did not do them.
    """
    module = [str(python), "-m", f"benchmarks.peers.{name}"]
    with _worker([*module, "work", url], folder / "idle", _LONE + 1, 1) as worker:
        _send(module, url, 1, 0.0)
        worker.wait("first", _START)
        time.sleep(1.0)  # start-up is over
        memory = sum(rss_mb(pid) for pid in worker.tree())
        _send(module, url, _LONE, _GAP)
        late = worker.wait("last", _START)["late"][1:]
    seconds = _send(module, url, count, 0.0)
    with _worker([*module, "work", url], folder / "busy", count, _BATCH) as worker:
        worker.wait("first", _START)
        before = worker.cpu()
        took = worker.wait("last", _ALL)["seconds"]
        cpu = worker.cpu() - before
    cuts = statistics.quantiles(late, n=100)
    return Peer(count / seconds, count / took, cpu / count, cuts[49] * 1000, cuts[98] * 1000, memory)


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT), **more}


def _send(module: list[str], url: str, count: int, gap: float) -> float:
    """Seconds it took."""
    told = subprocess.run(
        [*module, "send", url, str(count), str(gap)], env=_environment(), capture_output=True, text=True, check=False
    )
    if told.returncode:
        raise RuntimeError(f"sending failed: {told.stderr[-500:]}")
    return float(told.stdout)


class _Worker:
    def __init__(self, process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
        self._process = process
        self._folder = folder
        self._log = log

    def wait(self, name: str, limit: float) -> Any:
        """What the tally has written, once it has."""
        path, ends = self._folder / name, time.monotonic() + limit
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"no {name} task within {limit:g} s: {self._log.read_text()[-500:]}")
            time.sleep(0.005)
        return json.loads(path.read_text() or "null")

    def tree(self) -> list[int]:
        """Its processes."""
        found = [self._process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, children.read_text().split())
        return found

    def cpu(self) -> float:
        """Seconds of all of them."""
        total = 0
        for pid in self.tree():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICKS


@contextlib.contextmanager
def _worker(command: list[str], folder: Path, count: int, batch: int) -> Iterator[_Worker]:
    folder.mkdir()
    log = folder / "log"
    with log.open("wb") as output:
        environment = _environment(PEER_FOLDER=str(folder), PEER_COUNT=str(count), PEER_BATCH=str(batch))
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    worker = _Worker(process, folder, log)
    try:
        yield worker
    finally:
        left = worker.tree()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()
