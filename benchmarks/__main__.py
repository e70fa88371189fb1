"""``make bench``: prints tables of figures, each beside those of a bare loop taken in the same run."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from benchmarks.drains import file_to_file, sqlite_drain
from benchmarks.isolation import isolations
from benchmarks.measure import Run
from benchmarks.processes import scaling


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="tasks per drain")
    parser.add_argument("--brokers", action="store_true", help="the real brokers at hand, instead of the rest")
    parser.add_argument("--latency", action="store_true", help="from sending a task to its result, nothing else to do")
    parser.add_argument("--footprint", action="store_true", help="import, start and memory of an idle worker by bus")
    parser.add_argument("--plots", nargs="*", metavar="PART", help="draw docs/plots; PART: size, processes, queue")
    parser.add_argument("--peers", action="store_true", help="other Python task queues on the same servers")
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-peers/bin/python"), help="where they are")
    parser.add_argument("--memory", action="store_true", help="peak memory after 10,000, 100,000 and 1,000,000 tasks")
    parser.add_argument("--cron", action="store_true", help="loading and ticks of very many cron rules")
    parser.add_argument("--rules", type=int, default=100_000, help="how many, for --cron")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as name:
        folder = Path(name).resolve()
        if options.cron:
            _cron(folder, options.rules)
        elif options.memory:
            _memory(folder)
        elif options.latency:
            _latency(folder)
        elif options.footprint:
            _footprint(folder)
        elif options.plots is not None:
            _plots(folder, options.plots)
        elif options.peers:
            _peers(folder, options.peers_python)
        elif options.brokers:
            _brokers(folder, options.count)
        else:
            _table(folder, options.count)


def _table(folder: Path, count: int) -> None:
    _row("no-op worker", "tasks/s", "of the bare loop", "CPU µs/task (bare)", "peak MB")
    for label, drain in (("file to file", file_to_file), ("sqlite, default durability", sqlite_drain)):
        bare, run = drain(folder, count)
        _row(label, *_drained(bare, run, count))
    print()
    found = scaling(folder)
    _row("two processes for one", "speedup", "of two bare loops", "", "")
    _row("CPU-bound tasks on sqlite", f"{found.workers:.2f}", f"{found.bare:.2f}", "", "")
    print()
    thread, inline = isolations(folder, count)
    _row("file to file", "tasks/s", "of the async worker", "", "")
    _row("sync, in a thread", *_drained(inline, thread, count))


def _footprint(folder: Path) -> None:
    from benchmarks.footprint import idle_workers, import_seconds

    _row("import task", f"{import_seconds('import task') * 1000:.0f} ms", "", "", "")
    print()
    _row("idle worker", "MB", "ready, ms", "", "")
    for found in idle_workers(folder):
        if isinstance(found, str):
            print(f"# {found}")
        else:
            _row(found.bus, f"{found.memory:.0f}", f"{found.ready * 1000:.0f}", "", "")


def _plots(folder: Path, parts: list[str]) -> None:
    from benchmarks.plots.draw import PARTS, measure

    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"{', '.join(sorted(unknown))}: there is {', '.join(PARTS)}")
    measure(folder, parts or PARTS)


def _peers(folder: Path, python: Path, count: int = 10_000) -> None:
    from benchmarks.peers.table import peers

    print(f"{count:,} queued no-op tasks, one worker process; a lone task to an idle worker every 20 ms")
    head = ("done/s", "worker CPU µs/task", "sent/s, one by one", "from sent to begun, p50 / p99 ms", "idle MB")
    print(f"{'':<36} {' | '.join(head)}")
    for found in peers(folder, python.absolute(), count):
        if isinstance(found, str):
            print(f"# {found}", flush=True)
            continue
        server, name, peer = found
        late = f"{peer.p50:.2f} / {peer.p99:.2f}"
        cells = (f"{peer.done:,.0f}", f"{peer.cpu * 1e6:.0f}", f"{peer.sent:,.0f}", late, f"{peer.memory:.0f}")
        print(f"{server + ': ' + name:<36} {' | '.join(cells)}", flush=True)


def _brokers(folder: Path, count: int) -> None:
    from benchmarks.brokers import brokers

    logging.disable(logging.INFO)  # nsq-py tells all it does
    _row(
        "no-op worker",
        "tasks/s",
        "of the bare loop",
        "CPU µs/task (bare)",
        "peak MB",
        "publish_many of the bare client",
    )
    for pair in brokers(folder, count):
        if isinstance(pair, str):
            print(f"# {pair}")
            continue
        published = ""
        if pair.bare_publish is not None and pair.publish is not None:
            published = f"{pair.bare_publish / pair.publish:.2f} of {count / pair.bare_publish:,.0f}/s"
        _row(pair.name, *_drained(pair.bare, pair.run, count), published)


def _drained(bare: Run, run: Run, count: int) -> tuple[str, str, str, str]:
    """The cells of a drain: both from the first delivery to the last settlement; CPU of the worker's whole process."""
    return (
        f"{count / run.work:,.0f}",
        f"{bare.work / run.work:.2f} of {count / bare.work:,.0f}/s",
        f"{run.cpu / count * 1e6:.1f} ({bare.cpu / count * 1e6:.1f})",
        f"{run.peak_mb:.0f}",
    )


def _latency(folder: Path) -> None:
    from benchmarks.round_trip.table import round_trips

    _row("send to done, idle, ms", "p50", "of the bare client", "p99", "")
    for found in round_trips(folder):
        if isinstance(found, str):
            print(f"# {found}")
            continue
        name, ours, bare = found
        if bare is None:
            _row(name, f"{ours.p50:.2f}", "", f"{ours.p99:.2f}", "")
            continue
        ratios = f"{ours.p50 / bare.p50:.2f} of {bare.p50:.2f}, {ours.p99 / bare.p99:.2f} of {bare.p99:.2f}"
        _row(name, f"{ours.p50:.2f}", ratios, f"{ours.p99:.2f}", "")


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
    first = f"{cells[0]:<28} {cells[1]:>12}  {cells[2]:<26} {cells[3]:>18} {cells[4]:>8}"
    print(f"{first}  {'  '.join(cells[5:])}".rstrip())


if __name__ == "__main__":
    main()
