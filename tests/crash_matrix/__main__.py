"""``make crash-matrix``: every taskmaster on every bus, killed often; prints a table and the seed."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.crash_matrix.case import Case
from tests.crash_matrix.cases import CASES
from tests.crash_matrix.drive import BUSES, Report, crash

_ROW = "{:<18} {:<7} {:>6} {:>5} {:>7} {:>6} {:>6} {:>5} {:>6} {:>6} {:>8}"


async def _matrix(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}, {options.kills} kills and about {options.tasks} tasks each\n")
    head = ("taskmaster", "bus", "kills", "steps", "tasks", "lost", "more", "again", "calm", "", "seconds")
    print(_ROW.format(*head), flush=True)
    slots = asyncio.Semaphore(options.jobs)
    bad = 0

    async def one(case: type[Case], bus: str) -> None:
        nonlocal bad
        async with slots:
            folder = options.folder / f"{case.name}-{bus}".replace(" ", "")
            try:
                report = await crash(case, folder, bus, kills=options.kills, tasks=options.tasks, seed=options.seed)
            except Exception as error:  # one that fails must not keep the others from being seen
                print(f"{case.name} on {bus} FAILED: {type(error).__name__}: {error}", flush=True)
                bad += 1
                return
        bad += bool(report.missing or report.extra)
        _print(report)

    await asyncio.gather(*(one(case, bus) for bus in options.bus for case in CASES if case.name in options.case))
    return 1 if bad else 0


def _print(report: Report) -> None:
    wrong = "WRONG" if report.missing or report.extra else ""
    cells = (report.case, report.bus, report.kills.total(), report.kills["step"], report.made)
    more = (len(report.missing), len(report.extra), report.again, report.again_calm, wrong, f"{report.seconds:.0f}")
    print(_ROW.format(*cells, *more), flush=True)
    print("  ", ", ".join(f"{step} {count}" for step, count in sorted(report.steps.items())), flush=True)
    for name, keys in (("lost", report.missing), ("more", report.extra)):
        for key in sorted(keys, key=str)[:5]:
            print(f"  {name}: {key}", flush=True)


def main() -> int:
    """Run it."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m tests.crash_matrix", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--bus", nargs="+", choices=BUSES, default=BUSES)
    parser.add_argument("--case", nargs="+", choices=names, default=names)
    parser.add_argument("--jobs", type=int, default=2, help="cells of the table at the same time")
    parser.add_argument("--keep", type=Path, help="a folder that is kept, for what the processes wrote")
    options = parser.parse_args()
    os.environ["TASKBUS_SERVERS"] = "1"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        options.folder = options.keep or Path(name)
        code = asyncio.run(_matrix(options))
    print(f"\n{time.monotonic() - began:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
