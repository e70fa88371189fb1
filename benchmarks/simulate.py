"""How long a year of ``taskbus simulate`` takes: ``python -m benchmarks.simulate``.

Fifty rules: 25 of cron, twelve of which fire each hour and the others each day, one of these with a task that waits for
an hour with the delay taskmaster; fifteen of on-done that make a child of what ten make each hour, three each of what
four make each day, and one of two that belong together; five of retry; and a workflow of five jobs each day. A tenth of
all tasks fail twice. Beside it stands a bare loop that derives, encodes and decodes as many tasks.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from task.codec import decode, encode
from task.collector import calm_collector
from task.task import Task, derive_id
from taskmasters.simulate.printing import as_json
from taskmasters.simulate.run import Simulation
from taskmasters.simulate.setup import prepare

__all__ = ["main", "simulated", "write_rules"]

_START, _END = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2026, 2027))
_LATER = 'cron = "15 6 * * *"\ntype = "later"\ntopic = "delay"\nmeta = { run_at = "1h" }'
_HOURLY = 'cron = "{0} * * * *"\ntimezone = "Europe/Berlin"\ntype = "hourly{0}"\ntask = "s3://b/{{yyyy}}/{{mm}}/{{dd}}/{{hh}}"'
_TEXTS = {
    "cron": [
        *(_HOURLY.format(n) for n in range(12)),
        *(f'cron = "30 {n} * * *"\ntype = "daily{n}"' for n in range(12)),
        _LATER,
    ],
    "chain": [
        *(f'match = {{ type = "hourly{n}" }}\ntype = "child{n}"\ntask = "{{parent.value}}"' for n in range(10)),
        *(f'match = {{ type = "daily{n}" }}\ntype = "leaf{n}"\nfor_each = "1..3"' for n in range(4)),
        'all = [{ type = "hourly10" }, { type = "hourly11" }]\nby = "{parent.value}"\ntype = "both"',
    ],
    "retry": [f'match = {{ type = "hourly{n}" }}\nretries = 3\ndelay = "1m"' for n in range(5)],
    "results": ['match = {}\nresult = "error"\nshare = "10%"\nattempts = 2\nduration = "1m"'],
}
_JOB = '[[job]]\ntype = "job{0}"\nretry = 2\n'


def write_rules(folder: Path) -> tuple[list[str], str]:
    """The files of the rules, and that of the results."""
    for name, rules in _TEXTS.items():
        (folder / f"{name}.toml").write_text("\n".join(f"[[rule]]\n{rule}\n" for rule in rules))
    jobs = (_JOB.format(n) + (f'depends_on = "job{n - 1}"\n' if n else "") for n in range(5))
    (folder / "flow.toml").write_text('[[start]]\ncron = "@daily"\n' + "".join(jobs))
    return [str(folder / f"{name}.toml") for name in ("cron", "chain", "retry", "flow")], str(folder / "results.toml")


def simulated(files: list[str], results: str, start: float = _START, end: float = _END) -> int:
    """Simulate that time as JSON lines; how many there are."""
    players, comes = prepare(files, results, start)
    simulation = Simulation(players, comes, limit=10_000_000)
    count = sum(1 for _ in as_json(simulation.run(end)))
    simulation.close()
    return count


def _bare(count: int) -> None:
    for number in range(count):
        task = Task("t", "s3://b/2026/01/01", id=derive_id("bare", str(number)), meta={"cron": "2026-01-01T00:00:00Z"})
        decode(encode(task))


def main() -> None:
    """Measure and print."""
    calm_collector()  # as the command does
    with tempfile.TemporaryDirectory() as name:
        files, results = write_rules(Path(name))
        began, cpu = time.perf_counter(), time.process_time()
        count = simulated(files, results)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    began = time.process_time()
    _bare(count)
    bare = time.process_time() - began
    print(f"a year of 50 rules: {count:,} tasks in {seconds:.1f} s, {cpu:.1f} s of them on the CPU", end=": ")
    print(f"{cpu / count * 1e6:.0f} µs each, {cpu / bare:.1f} times as much as the bare loop")


if __name__ == "__main__":
    main()
