"""``taskbus certify``: whether a worker bears its tasks twice, in any order, side by side and killed midway."""

from __future__ import annotations

import random
from collections.abc import Sequence

import click
import orjson

from apps.certify.examine import SCENARIOS, Examination
from apps.certify.report import as_json, as_text, certified, scenario_lines
from apps.certify.run import Runner
from apps.certify.state import CommandProbe, FolderProbe, NoProbe, Probe, SqlProbe
from apps.cli.errors import say
from apps.cli.options import duration
from apps.cli.output import print_lines
from apps.cli.task_file import BadLine, TaskFile
from task.task import Task

__all__ = ["command"]

#: Tasks of a file: each run does all of them, and a few show as much as many.
_MOST = 1000


@click.command()
@click.argument("worker")
@click.argument("file", metavar="TASKS.jsonl")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- WORKER-OPTIONS]")
@click.option("--state-dir", metavar="DIR", help="Compare the files below DIR, which must be empty without --reset.")
@click.option("--state-command", metavar="CMD", help="Compare what CMD prints.")
@click.option("--state-sql", nargs=2, metavar="URL QUERY", help="Compare rows: sqlite:FILE, or a URL of SQLAlchemy.")
@click.option("--reset", metavar="CMD", help="Makes the state fresh; run before every run and at the end.")
@click.option("--ignore", multiple=True, metavar="PATTERN", help="Leave out these files of --state-dir; repeatable.")
@click.option("--only", multiple=True, type=click.Choice(SCENARIOS), help="Only this scenario; repeatable.")
@click.option("--orders", type=click.IntRange(min=0), default=2, show_default=True, help="Shuffled orders to try.")
@click.option("--parallel", type=click.IntRange(min=2), default=4, show_default=True, help="Tasks side by side.")
@click.option("--kills", type=click.IntRange(min=1), default=12, show_default=True, help="Places to kill at, at most.")
@click.option("--seed", type=int, help="Decides about orders, pauses and kills; by default by chance, and told.")
@click.option("--runs", type=click.IntRange(min=2), default=200, show_default=True, help="Runs in all, at most.")
@click.option("--timeout", type=duration, default="2m", show_default=True, metavar="TIME", help="For each run.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")
def command(
    worker: str,
    file: str,
    flags: tuple[str, ...],
    state_dir: str | None,
    state_command: str | None,
    state_sql: tuple[str, str] | None,
    reset: str | None,
    ignore: tuple[str, ...],
    only: tuple[str, ...],
    orders: int,
    parallel: int,
    kills: int,
    seed: int | None,
    runs: int,
    timeout: float,
    as_object: bool,
) -> int:
    """Show whether WORKER is idempotent and does not mind the order of its tasks.

    It does the tasks of the file once, twice, in other orders, side by side and killed midway, each from fresh state
    and on a bus of its own in a temporary folder, and compares results and the state that is told how to look at.

    Exit code 0 says that nothing differed, 1 that something did, 2 that the command is used wrongly.
    """
    probe = _probe(state_dir, state_command, state_sql, reset, ignore)
    tasks = _tasks(file)
    seed = random.randrange(10**6) if seed is None else seed
    runner = Runner(worker, tasks, probe, flags, patience=timeout, runs=runs)
    examination = Examination(runner, seed=seed, orders=orders, parallel=parallel, kills=kills)
    if not as_object:
        say(f"{worker}: {len(tasks)} tasks, seed {seed}")
    scenarios = []
    try:
        for scenario in examination.examine([name for name in SCENARIOS if not only or name in only]):
            scenarios.append(scenario)
            if not as_object:
                _print(scenario_lines(scenario))
    finally:
        runner.close()
    if as_object:
        print_lines([orjson.dumps(as_json(worker, len(tasks), scenarios, probe.name, seed))])
    else:
        _print(as_text(scenarios, probe.name))
    return 0 if certified(scenarios) else 1


def _print(lines: Sequence[str]) -> None:
    print_lines([line.encode("utf-8", "backslashreplace") for line in lines])


def _probe(
    folder: str | None,
    command: str | None,
    sql: tuple[str, str] | None,
    reset: str | None,
    ignore: tuple[str, ...],
) -> Probe:
    if sum(given is not None for given in (folder, command, sql)) > 1:
        raise click.UsageError("--state-dir, --state-command and --state-sql: give one of them")
    if ignore and folder is None:
        raise click.UsageError("--ignore is for --state-dir")
    if folder is not None:
        return FolderProbe(folder, reset, ignore)
    if command is None and sql is None:
        return NoProbe(reset)
    if reset is None:
        option = "--state-command" if command is not None else "--state-sql"
        raise click.UsageError(f"{option}: needs --reset CMD, since each run is to begin with fresh state")
    if command is not None:
        return CommandProbe(command, reset)
    url, query = sql or ("", "")
    return SqlProbe(url, query, reset)


def _tasks(path: str) -> list[Task]:
    """The tasks of the file, each with an id of its own: what is the same task twice would hide what comes of it."""
    found: list[Task] = []
    with TaskFile(path, lambda task: task) as file:
        for task in file.read():
            if isinstance(task, BadLine):
                raise click.UsageError(f"{file.name}:{task.number}: {task.reason}")
            found.append(task)
            if len(found) > _MOST:
                raise click.UsageError(f"{file.name}: holds more than {_MOST} tasks: a few of each sort show as much")
    if not found:
        raise click.UsageError(f"{path}: holds no tasks")
    if len({task.type for task in found}) > 1:
        raise click.UsageError(f"{path}: a worker does tasks of one type, and there are several")
    taken: set[str] = set()
    for position, task in enumerate(found):
        if task.id is None or task.id in taken:
            found[position] = task.replace(id=f"certify-{position + 1}")
        taken.add(str(found[position].id))
    return found
