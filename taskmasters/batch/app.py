"""``taskbus taskmaster batch``: the tasks of a range of dates, or of the rows of a file, previewed and then sent."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click

from bus import BusURL, Message, OutputClosedError, check_topic, connect
from bus.units import parse_duration
from task.codec import encode
from task.errors import SettingsError
from task.exits import Exit
from task.options import DEFAULT_BUS
from task.task import Task, new_id
from taskmasters.batch.moments import Step, moments, parse_hours, parse_moment
from taskmasters.batch.plan import META_TOKENS, TASK_TOKENS, Plan
from taskmasters.batch.rows import read_rows
from taskmasters.batch.send import BatchError, send
from taskmasters.cron.rules import CronRule, load_cron_rules
from taskmasters.templates import Template
from taskmasters.zone import Zone, find_zone

__all__ = ["batch"]

#: Standard output, as a bus: one task a line.
_STDOUT = BusURL("stdio")
#: Tasks printed at a time.
_PRINTED = 500
Read = TypeVar("Read")


@click.command("batch", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("type", required=False)
@click.option("--task", metavar="TEMPLATE", help="Value of each task, as in 's3://b/{yyyy}/{mm}/{dd}?id={row:id}'.")
@click.option("--job", metavar="NAME", help="Job of each task.")
@click.option("--meta", multiple=True, metavar="KEY=TEMPLATE", help="A text to travel along; repeatable.")
@click.option("--topic", metavar="NAME", help="Topic to send to; by default the task type.")
@click.option("--rule", metavar="RULES[#ID]", help="Take type, task, job, meta, topic and zone from a cron rule.")
@click.option("--from", "start", metavar="MOMENT", help="First moment: 2026-01, 2026-01-31T05, now, -36h.")
@click.option("--to", "end", metavar="MOMENT", help="Last moment, included; before --from it goes backward.")
@click.option("--for", "length", metavar="TIME", help="Instead of --to: how long, as 7d or -24h.")
@click.option(
    "--by", type=click.Choice([str(step) for step in Step]), help="Step; by default day, or the instants of --rule."
)
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
def batch(skip: int, rate: float | None, execute: bool, bus: str, **given: Any) -> Exit:
    """Make a task of TYPE for each moment of a range, each row of a file, or each of both.

    Prints the tasks as JSON lines. With --execute sends them instead, once all of them are known to be right.
    """
    plan = _plan(given, time.time())
    count = sum(1 for _ in plan.tasks())
    left = max(0, count - skip)
    if not execute:
        code = asyncio.run(_print(itertools.islice(plan.tasks(), skip, None)))
        _say(f"{left} tasks, none of them sent; --execute sends them to {plan.topic}")
        return code
    return asyncio.run(_send(plan, bus, skip, rate))


def _plan(given: dict[str, Any], now: float) -> Plan:
    rule = _rule(given["rule"]) if given["rule"] else None
    kind = given["type"] or (rule.type if rule else None)
    if not kind:
        raise click.UsageError("which tasks? Give their TYPE and --task, or a --rule")
    zone = _read("--timezone", find_zone, given["timezone"]) if given["timezone"] else _zone(rule)
    meta = dict(rule.meta) if rule else {}
    for text in given["meta"]:
        key, equals, template = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--meta: {text!r} is not KEY=TEMPLATE")
        meta[key] = _read("--meta", lambda text: Template(text, META_TOKENS), template)
    task = rule.task if rule else Template("", ())
    if given["task"] is not None:
        task = _read("--task", lambda text: Template(text, TASK_TOKENS), given["task"])
    rows = given["rows"]
    found = _moments(given, rule, zone, now)
    if found is None and rows is None:
        raise click.UsageError("which tasks? Give --from and --to, --rows, or both")
    return Plan(
        id=given["batch_id"] or new_id(),
        type=kind,
        job=given["job"] or (rule.job if rule else None),
        topic=check_topic(given["topic"] or (rule.topic if rule else kind)),
        task=task,
        meta=meta,
        zone=zone,
        offset=rule.offset if rule else 0.0,
        moments=found,
        rows=None if rows is None else lambda: read_rows(rows),
    )


def _moments(
    given: dict[str, Any], rule: CronRule | None, zone: Zone, now: float
) -> Callable[[], Iterable[int]] | None:
    if given["start"] is None:
        for option in ("end", "length", "by", "hours", "except_hours"):
            if given[option] is not None:
                raise click.UsageError("--to, --for, --by and --hours go with --from")
        return None
    start = _read("--from", lambda text: parse_moment(text, zone, now), given["start"])
    if given["end"] is not None and given["length"] is not None:
        raise click.UsageError("--to and --for say the same: give one of them")
    end = start
    if given["end"] is not None:
        end = _read("--to", lambda text: parse_moment(text, zone, now), given["end"])
    elif given["length"] is not None:
        end = start + int(_read("--for", parse_duration, given["length"]))
    hours = _read("--hours", parse_hours, given["hours"] or "0-23")
    if given["except_hours"]:
        hours -= _read("--except-hours", parse_hours, given["except_hours"])
    if rule is not None and given["by"] is None:
        return lambda: _instants(rule, start, end)
    step = Step(given["by"] or Step.DAY)
    return lambda: moments(start, end, step, zone, hours)


def _instants(rule: CronRule, start: int, end: int) -> Iterable[int]:
    """The instants of the rule itself."""

    def forward() -> Iterator[int]:
        instant = rule.schedule.next(min(start, end) - 1)
        while instant is not None and instant <= max(start, end):
            yield instant
            instant = rule.schedule.next(instant)

    return forward() if end >= start else reversed(list(forward()))


def _rule(text: str) -> CronRule:
    path, _, id = text.partition("#")
    rules = {rule.id: rule for rule in load_cron_rules(path)}
    if not id and len(rules) == 1:
        return next(iter(rules.values()))
    if id not in rules:
        known = ", ".join(list(rules)[:20])
        raise SettingsError(f"{path} has no rule {id!r}: write {path}#ID with one of {known}")
    return rules[id]


def _zone(rule: CronRule | None) -> Zone:
    return rule.zone if rule else find_zone("UTC")


def _read(option: str, read: Callable[[str], Read], text: str) -> Read:
    try:
        return read(text)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{option}: {error}") from None


async def _print(tasks: Iterator[Task]) -> Exit:
    async with connect(_STDOUT) as bus:
        producer = await bus.producer()
        try:
            while some := list(itertools.islice(tasks, _PRINTED)):
                await producer.publish_many([Message("preview", encode(task)) for task in some])
        except OutputClosedError:
            pass
    return Exit.OK


async def _send(plan: Plan, url: str, skip: int, rate: float | None) -> Exit:
    async with connect(url) as bus, await bus.producer() as producer:
        try:
            sent = await send(itertools.islice(plan.tasks(), skip, None), plan.topic, producer, rate=rate)
        except BatchError as error:
            _say(f"{error.sent} tasks were sent and confirmed")
            _say(f"to go on: the same command with --batch-id {plan.id} --skip {skip + error.sent}")
            raise error.__cause__ from None  # type: ignore[misc]
    _say(f"{sent} tasks sent to {plan.topic} on {bus.url} as batch {plan.id}")
    return Exit.OK


def _say(text: str) -> None:
    click.echo(f"taskbus: {text}", err=True)
