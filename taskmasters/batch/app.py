"""``taskbus taskmaster batch``: the tasks of a range of dates, or of the rows of a file, previewed and then sent."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bus import BusURL, Message, OutputClosedError, connect
from bus.url import nearest
from task.codec import encode
from task.errors import SettingsError
from task.exits import Exit
from task.options import DEFAULT_BUS
from task.task import Task, new_id
from taskmasters.batch.asked import Asked, AskedError, make_plan
from taskmasters.batch.moments import Step
from taskmasters.batch.plan import Plan
from taskmasters.batch.rows import read_rows
from taskmasters.batch.send import BatchError, send
from taskmasters.cron.rules import CronRule, load_cron_rules

if TYPE_CHECKING:
    from taskmasters.workflow.definition import Workflow

__all__ = ["batch"]

#: Standard output, as a bus: one task a line.
_STDOUT = BusURL("stdio")
#: Tasks printed at a time.
_PRINTED = 500
Found = TypeVar("Found")


@click.command("batch", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("type", required=False)
@click.option("--task", metavar="TEMPLATE", help="Value of each task, as in 's3://b/{yyyy}/{mm}/{dd}?id={row:id}'.")
@click.option("--job", metavar="NAME", help="Job of each task.")
@click.option("--meta", multiple=True, metavar="KEY=TEMPLATE", help="A text to travel along; repeatable.")
@click.option("--topic", metavar="NAME", help="Topic to send to; by default the task type.")
@click.option("--rule", metavar="RULES[#ID]", help="Take type, task, job, meta, topic and zone from a cron rule.")
@click.option("--workflow", metavar="PATH[#ID]", help="Ask for a run of this workflow for each moment and row.")
@click.option("--phase", metavar="NAME", help="Begin each run with this job or step of the workflow.")
@click.option("--tasks", is_flag=True, help="Print the tasks that the runs would make, if each task completed.")
@click.option("--from", "start", metavar="MOMENT", help="First moment: 2026-01, 2026-01-31T05, now, -36h.")
@click.option("--to", "end", metavar="MOMENT", help="Last moment, included; before --from it goes backward.")
@click.option("--for", "length", metavar="TIME", help="Instead of --to: how long, as 7d or -24h.")
@click.option(
    "--by", type=click.Choice([str(step) for step in Step]), help="Step; by default day, or the instants of --rule."
)
@click.option("--every", metavar="N", help="Only every Nth step.")
@click.option("--hours", metavar="HOURS", help="Only these hours of the day, as 0,4,8-12.")
@click.option("--except-hours", metavar="HOURS", help="Not these hours of the day.")
@click.option("--timezone", metavar="NAME", help="Zone of dates and templates; by default UTC.")
@click.option("--rows", metavar="PATH", help="One task for each row of a .csv or .jsonl file, at each moment.")
@click.option("--batch-id", metavar="TEXT", help="Names the batch; the same one makes the same task ids again.")
@click.option("--skip", type=click.IntRange(0), default=0, metavar="N", help="Leave out the first N tasks.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Send at most N tasks a second.")
@click.option("--execute", is_flag=True, help="Send the tasks. Without it they are printed and nothing is sent.")
@click.option(
    "--bus", envvar="TASKBUS_BUS", show_envvar=True, default=DEFAULT_BUS, show_default=True, metavar="URL", help="Bus."
)
def batch(skip: int, rate: float | None, execute: bool, bus: str, tasks: bool, **given: Any) -> Exit:
    """Make a task of TYPE for each moment of a range, each row of a file, or each of both.

    Prints the tasks as JSON lines. With --execute sends them instead, once all of them are known to be right.
    """
    if tasks and not given["workflow"]:
        raise click.UsageError("--tasks shows what runs of a --workflow would make")
    if tasks and execute:
        raise click.UsageError("--tasks shows and --execute sends: give one of them")
    plan = _plan(given, time.time())
    count = sum(1 for _ in plan.tasks())
    left = max(0, count - skip)
    if not execute:
        made = itertools.islice(plan.tasks(), skip, None)
        if tasks:
            return asyncio.run(_print(_played(given["workflow"], made)))
        code = asyncio.run(_print(map(encode, made)))
        _say(f"{_counted(left, plan)}, {'not' if left == 1 else 'none of them'} sent; --execute sends to {plan.topic}")
        return code
    return asyncio.run(_send(plan, bus, skip, rate))


def _plan(given: dict[str, Any], now: float) -> Plan:
    if given["rule"] and given["workflow"]:
        raise click.UsageError("--rule and --workflow both say which tasks: give one of them")
    rows = given.pop("rows")
    meta = [_key_and_template(text) for text in given.pop("meta")]
    rule = _rule(given["rule"]) if given["rule"] else None
    flow = _workflow(given["workflow"]) if given["workflow"] else None
    asked = Asked(
        id=given.pop("batch_id") or new_id(),
        meta=meta,
        rows=None if rows is None else lambda: read_rows(rows),
        **{**given, "rule": rule, "workflow": flow},
    )
    try:
        return make_plan(asked, now, lambda name: "TYPE" if name == "type" else f"--{name}")
    except AskedError as error:
        raise click.UsageError(str(error)) from None


def _key_and_template(text: str) -> tuple[str, str]:
    key, equals, template = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"--meta: {text!r} is not KEY=TEMPLATE")
    return key, template


def _rule(text: str) -> CronRule:
    path, _, id = text.partition("#")
    return _chosen(path, id, "rule", {rule.id: rule for rule in load_cron_rules(path)})


def _workflow(text: str) -> Workflow:
    from taskmasters.workflow.load import load_workflows

    path, _, id = text.partition("#")
    return _chosen(path, id, "workflow", {one.id: one for one in load_workflows(path)})


def _chosen(path: str, id: str, what: str, found: Mapping[str, Found]) -> Found:
    if not id and len(found) == 1:
        return next(iter(found.values()))
    if id in found:
        return found[id]
    known = ", ".join(list(found)[:20])
    said = f"has no {what} {id!r}{nearest(id, sorted(found))}" if id else f"has {len(found)} {what}s"
    raise SettingsError(f"{path} {said}: write {path}#ID with one of {known}")


def _counted(count: int, plan: Plan) -> str:
    word = "request for a run" if plan.runs and count == 1 else "requests for runs" if plan.runs else "task"
    return f"{count} {word}" if count == 1 or plan.runs else f"{count} {word}s"


def _played(text: str, requests: Iterator[Task]) -> Iterator[bytes]:
    """The tasks that the runs asked for would make, one run after the other."""
    from taskmasters.workflow.explain import play

    flow, now = _workflow(text), time.time()
    for request in requests:
        yield from play(flow, request, now)


async def _print(bodies: Iterator[bytes]) -> Exit:
    async with connect(_STDOUT) as bus:
        producer = await bus.producer()
        try:
            while some := list(itertools.islice(bodies, _PRINTED)):
                await producer.publish_many([Message("preview", body) for body in some])
        except OutputClosedError:
            pass
    return Exit.OK


async def _send(plan: Plan, url: str, skip: int, rate: float | None) -> Exit:
    async with connect(url) as bus, await bus.producer() as producer:
        try:
            sent = await send(itertools.islice(plan.tasks(), skip, None), plan.topic, producer, rate=rate)
        except BatchError as error:
            _say(f"{_counted(error.sent, plan)} {'was' if error.sent == 1 else 'were'} sent and confirmed")
            _say(f"to go on: the same command with --batch-id {plan.id} --skip {skip + error.sent}")
            raise error.__cause__ from None  # type: ignore[misc]
    _say(f"{_counted(sent, plan)} sent to {plan.topic} on {bus.url} as batch {plan.id}")
    return Exit.OK


def _say(text: str) -> None:
    click.echo(f"taskbus: {text}", err=True)
