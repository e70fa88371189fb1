"""A worker in a thread beside an async one on a loop of its own: no-op tasks from file to file."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Run, run_child, stopped, write_tasks

__all__ = ["isolations"]

_WORKER = """
from task import Worker, complete, run


class Nothing(Worker):
    type = "noop"

    {how} do_task(self, ctx):
        return complete()


if __name__ == "__main__":
    run(Nothing)
"""


def isolations(folder: Path, count: int, times: int = 3) -> tuple[Run, Run]:
    """The runs of a sync worker in a thread and of an async one inline, the best of ``times`` each, in turns."""
    source = folder / "isolation.jsonl"
    write_tasks(source, count)
    for name, how in (("thread", "def"), ("inline", "async def")):
        (folder / f"{name}.py").write_text(_WORKER.format(how=how))
    rounds = [[_run(folder, name, source) for name in ("thread", "inline")] for _ in range(times)]
    thread, inline = (min(runs, key=lambda run: run.work) for runs in zip(*rounds, strict=True))
    return thread, inline


def _run(folder: Path, name: str, source: Path) -> Run:
    target = folder / "isolation-out.jsonl"
    target.unlink(missing_ok=True)
    command = [sys.executable, f"{name}.py", "--in", str(source), "--out", str(target), "--log-format", "json"]
    with tempfile.TemporaryFile("w+", dir=folder) as log:
        run = run_child(command, folder, log)
        return replace(run, work=stopped(log))
