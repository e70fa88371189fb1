"""How long a year of ``taskbus simulate`` takes: ``python -m benchmarks.simulate``.

Fifty rules: twenty of cron that fire each hour and five each day; fifteen of on-done that make a child of what half of
these make; five of retry, for a tenth of the tasks, which fail once or twice; a workflow with four jobs that begins each
hour, and one task each day that waits for an hour with the delay taskmaster. Beside it stands a bare loop that derives,
encodes and decodes as many tasks.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from task.codec import decode, encode
from task.task import Task, derive_id
from taskmasters.simulate.printing import as_json
from taskmasters.simulate.run import Simulation
from taskmasters.simulate.setup import prepare

__all__ = ["main", "write_rules", "year"]

_START, _END = (datetime(2026, 1, day, tzinfo=UTC).timestamp() for day in (1, 11))


def write_rules(folder: Path) -> tuple[list[str], str]:
    """The files of the rules, and that of the results."""
    texts = {
        "cron": [
            *(
                f'cron = "{n * 3} * * * *"\ntimezone = "Europe/Berlin"\ntype = "hourly{n}"\ntask = "s3://b/{{yyyy}}/{{mm}}/{{dd}}/{{hh}}"'
                for n in range(20)
            ),
            *(f'cron = "30 {n} * * *"\ntype = "daily{n}"' for n in range(4)),
            'cron = "15 6 * * *"\ntype = "later"\ntopic = "delay"\nmeta = { run_at = "1h" }',
        ],
        "chain": [
            *(f'match = {{ type = "hourly{n}" }}\ntype = "child{n}"\ntask = "{{parent.value}}"' for n in range(10)),
            *(f'match = {{ type = "daily{n}" }}\ntype = "leaf{n}"\nfor_each = "1..3"' for n in range(4)),
            'all = [{ type = "hourly10" }, { type = "hourly11" }]\nby = "{meta:cron}"\ntype = "both"',
        ],
        "retry": [f'match = {{ type = "hourly{n}" }}\nretries = 3\ndelay = "1m"' for n in range(5)],
        "results": ['match = {}\nresult = "error"\nshare = "10%"\nattempts = 2\nduration = "1m"'],
    }
    for name, rules in texts.items():
        (folder / f"{name}.toml").write_text("\n".join(f"[[rule]]\n{rule}\n" for rule in rules))
    jobs = "".join(
        f'[[job]]\ntype = "job{n}"\nretry = 2\n' + (f'depends_on = "job{n - 1}"\n' if n else "") for n in range(4)
    )
    (folder / "flow.toml").write_text(f'[[start]]\ncron = "@hourly"\n{jobs}')
    return [str(folder / f"{name}.toml") for name in ("cron", "chain", "retry", "flow")], str(folder / "results.toml")


def year(files: list[str], results: str) -> int:
    """Simulate a year of them; how many tasks there are."""
    players, comes = prepare(files, results, _START)
    simulation = Simulation(players, comes, limit=10_000_000)
    count = sum(1 for _ in as_json(simulation.run(_END)))
    simulation.close()
    return count


def _bare(count: int) -> None:
    for number in range(count):
        task = Task("t", "s3://b/2026/01/01", id=derive_id("bare", str(number)), meta={"cron": "2026-01-01T00:00:00Z"})
        decode(encode(task))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        files, results = write_rules(Path(name))
        began = time.process_time()
        count = year(files, results)
        seconds = time.process_time() - began
    began = time.process_time()
    _bare(count)
    bare = time.process_time() - began
    print(f"a year of 50 rules: {count:,} tasks in {seconds:.1f} s, {seconds / count * 1e6:.0f} µs each", end=", ")
    print(f"{seconds / bare:.1f} of a bare loop's")


if __name__ == "__main__":
    main()
