"""``make bench``: prints one table; ``--brokers`` one of the real brokers, ``--memory`` memory over a million tasks,
``--cron`` 100,000 cron rules."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.drains import file_to_file, sqlite_drain
from benchmarks.footprint import idle_worker, import_seconds
from benchmarks.processes import scaling


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="tasks per drain")
    parser.add_argument("--brokers", action="store_true", help="the real brokers at hand, instead of the rest")
    parser.add_argument("--memory", action="store_true", help="peak memory after 10,000, 100,000 and 1,000,000 tasks")
    parser.add_argument("--cron", action="store_true", help="loading and ticks of very many cron rules")
    parser.add_argument("--rules", type=int, default=100_000, help="how many, for --cron")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        if options.cron:
            _cron(folder, options.rules)
        elif options.memory:
            _memory(folder)
        elif options.brokers:
            _brokers(folder, options.count)
        else:
            _table(folder, options.count)


def _table(folder: Path, count: int) -> None:
    _row("no-op worker", "tasks/s", "of the bare loop", "CPU µs/task", "peak MB")
    for label, drain in (("file to file", file_to_file), ("sqlite, default durability", sqlite_drain)):
        bare, run = drain(folder, count)
        _row(
            label,
            f"{count / run.seconds:,.0f}",
            f"{bare / run.seconds:.2f} of {count / bare:,.0f}/s",
            f"{run.cpu / count * 1e6:.1f}",
            f"{run.peak_mb:.0f}",
        )
    print()
    found = scaling(folder)
    _row("two processes for one", "speedup", "of two bare loops", "", "")
    _row("CPU-bound tasks on sqlite", f"{found.workers:.2f}", f"{found.bare:.2f}", "", "")
    print()
    _row("footprint", "", "", "", "")
    _row("import task", f"{import_seconds('import task') * 1000:.0f} ms", "", "", "")
    ready, memory = idle_worker(folder)
    _row("idle worker on sqlite", f"{memory:.0f} MB", f"ready in {ready * 1000:.0f} ms", "", "")


def _brokers(folder: Path, count: int) -> None:
    from benchmarks.brokers import brokers

    _row("no-op worker", "tasks/s", "of the bare loop", "CPU µs/task", "peak MB", "publish_many of the bare client")
    for pair in brokers(folder, count):
        if isinstance(pair, str):
            print(f"# {pair}")
            continue
        name, bare, run, bare_publish, publish = pair
        _row(
            name,
            f"{count / run.seconds:,.0f}",
            f"{bare / run.seconds:.2f} of {count / bare:,.0f}/s",
            f"{run.cpu / count * 1e6:.1f}",
            f"{run.peak_mb:.0f}",
            f"{bare_publish / publish:.2f} of {count / bare_publish:,.0f}/s",
        )


def _cron(folder: Path, count: int) -> None:
    from benchmarks.cron import KINDS, ticks

    print(f"{count:,} cron rules, each once a minute")
    for kind in KINDS:
        found = ticks(folder, kind, count, 60.0)
        print(
            f"{kind:<9} loaded in {found['load']:.1f} s ({found['load_cpu']:.1f} s CPU),"
            f" started in {found['start']:.1f} s,"
            f" {found['memory']:.0f} MB"
            + (f", read again in {found['reload']:.1f} s" if found["reload"] else "")
            + f"; {found['ticks']:,} ticks, late by p50 {found['p50'] * 1e3:.0f} ms, p99 {found['p99'] * 1e3:.0f} ms,"
            f" at most {found['max'] * 1e3:.0f} ms; {found['cpu'] * 1e6:.0f} µs CPU each,"
            f" bare publish {found['bare'] * 1e6:.0f} µs",
            flush=True,
        )


def _memory(folder: Path) -> None:
    _row("peak memory, MB", "file to file", "sqlite", "", "")
    for count in (10_000, 100_000, 1_000_000):
        for path in folder.iterdir():
            path.unlink()
        peaks = [drain(folder, count)[1].peak_mb for drain in (file_to_file, sqlite_drain)]
        _row(f"{count:,} tasks", f"{peaks[0]:.1f}", f"{peaks[1]:.1f}", "", "")


def _row(*cells: str) -> None:
    first = f"{cells[0]:<28} {cells[1]:>12}  {cells[2]:<26} {cells[3]:>12} {cells[4]:>8}"
    print(f"{first}  {'  '.join(cells[5:])}".rstrip())


if __name__ == "__main__":
    main()
