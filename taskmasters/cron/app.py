"""``taskbus taskmaster cron``: makes tasks as time passes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from bus import BusURL, Message, OutputClosedError, connect, parse_url
from task.exits import Exit
from task.logs import setup_logs
from task.settings import click_options, resolve
from task.status import serve_status
from taskmasters.clock import Clock, SystemClock
from taskmasters.cron.explain import explain, preview
from taskmasters.cron.keep import Kept, is_there, kept, leading
from taskmasters.cron.options import CronOptions
from taskmasters.cron.reasons import explain_last, explain_next
from taskmasters.cron.report import CronReport
from taskmasters.cron.reread import CronReader
from taskmasters.cron.rules import CronRule
from taskmasters.cron.taskmaster import CronTaskmaster
from taskmasters.reload import RuleFile
from taskmasters.running import run_until_stopped

__all__ = ["cron"]

_log = logging.getLogger("taskbus.cron")
#: Standard output, as a bus: one task a line.
_STDOUT = BusURL("stdio")
#: Tasks written at a time in a preview.
_BATCH = 500


@click.command("cron", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rules", metavar="RULES")
@click.option("--check", is_flag=True, help="Explain each rule, with its next firing, and exit; 2 if one is wrong.")
@click.option("--dry-run", is_flag=True, help="Print tasks when they come due instead of sending them.")
@click.option(
    "--next", "count", type=click.IntRange(1), metavar="N", help="Print the next N tasks of each rule and exit."
)
@click.option(
    "--explain",
    "reasons",
    type=int,
    metavar="N",
    help="Say of the next N times of each rule, or of the last with -N, why they fire or do not, and exit.",
)
@click_options(CronOptions)
def cron(
    rules: str, check: bool, dry_run: bool, count: int | None, reasons: int | None, config: Path | None, **flags: Any
) -> Exit:
    """Make tasks as time passes, by the rules in the TOML or YAML file RULES.

    Several replicas may run: they give the same instant the same task id.
    """
    options = resolve(CronOptions, flags, config=config).settings
    reader = CronReader()
    file = RuleFile(rules, reader.load, reader.again)
    clock = SystemClock()
    if check:
        for line in explain(file.rules, clock.now()):
            click.echo(line)
        return Exit.OK
    if reasons is not None:
        for line in _reasons(file, options, clock.now(), reasons):
            click.echo(line)
        return Exit.OK
    setup_logs(options.log_level, options.log_format)
    if count is not None:
        return asyncio.run(_print(preview(file.rules, clock.now(), count)))
    with kept(file.path, replace(options, state="-") if dry_run else options) as found:
        return asyncio.run(_work(file, options, clock, found, dry_run))


def _reasons(file: RuleFile[list[CronRule]], options: CronOptions, now: float, count: int) -> Iterator[str]:
    fired: Mapping[str, int] = {}
    if count < 0 and is_there(file.path, options):
        with kept(file.path, options) as found:
            fired = found.state.read({rule.id: rule.schedule.text for rule in file.rules})
    for rule in file.rules:
        yield rule.id
        if count < 0:
            yield from (f"  {line}" for line in explain_last(rule, now, -count, fired.get(rule.id)))
        else:
            yield from (f"  {line}" for line in explain_next(rule, now, count))


async def _print(bodies: Iterator[bytes]) -> Exit:
    async with connect(_STDOUT) as bus:
        producer = await bus.producer()
        batch: list[Message] = []
        for body in bodies:
            batch.append(Message("preview", body))
            if len(batch) == _BATCH:
                await producer.publish_many(batch)
                batch.clear()
        if batch:
            await producer.publish_many(batch)
    return Exit.OK


async def _work(file: RuleFile[list[CronRule]], options: CronOptions, clock: Clock, found: Kept, dry_run: bool) -> Exit:
    url = _STDOUT if dry_run else parse_url(options.bus)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(url))
        producer = await stack.enter_async_context(await bus.producer())
        taskmaster = CronTaskmaster(file.rules, producer, found.state, clock, found.leader)
        if options.status_port is not None:
            report = CronReport(taskmaster, file, str(url), time.time())
            sync = stack.enter_context(ExitStack())
            sync.enter_context(serve_status(report, options.status_host, options.status_port))
        started = partial(
            _log.info,
            "making tasks",
            extra={"event": "started", "rules": len(taskmaster.rules), "file": file.path, "bus": str(url)},
        )
        await stack.enter_async_context(leading(found.leader))
        await stack.enter_async_context(file.watched(taskmaster.use))
        try:
            finished = await run_until_stopped(taskmaster, options.kill_time, started)
        except OutputClosedError:
            if not dry_run:
                raise
            return Exit.OK
        _log.info("stopped", extra={"event": "stopped", "sent": taskmaster.sent})
        return Exit.OK if finished else Exit.INTERRUPTED
