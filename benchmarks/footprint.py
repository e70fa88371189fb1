"""What starting, importing and idling cost."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import rss_mb

__all__ = ["idle_worker", "import_seconds"]

_ROOT = Path(__file__).parent.parent


def import_seconds(statement: str, times: int = 7) -> float:
    """Median seconds ``statement`` costs a fresh interpreter, beyond what starting it costs."""
    return statistics.median(_run(statement) for _ in range(times)) - statistics.median(
        _run("pass") for _ in range(times)
    )


def idle_worker(folder: Path) -> tuple[float, float]:
    """Seconds until a worker on SQLite is ready, and the memory in MB it occupies when it has nothing to do."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-m", "apps.cli.main", "worker", "noop", "--bus", f"sqlite:{folder}/idle.db"]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        if process.stderr is None:
            raise RuntimeError("the worker has no stderr")
        for line in process.stderr:
            if re.search(r"\bworking\b", line):
                break
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
