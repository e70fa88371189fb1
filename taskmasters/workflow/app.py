"""``taskbus taskmaster workflow``: runs graphs of jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from bus import check_topic, connect, dead_topic, parse_url
from task.errors import SettingsError
from task.exits import Exit
from task.logs import setup_logs
from task.settings import click_options, resolve
from task.status import serve_status
from task.task import Task
from taskmasters.clock import SystemClock
from taskmasters.cron.rules import CRON, instant_text
from taskmasters.reload import RuleFile
from taskmasters.running import run_until_stopped
from taskmasters.store import Store, open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.workflow.book import Book
from taskmasters.workflow.definition import Workflow
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.explain import explain, play
from taskmasters.workflow.load import check_topics, load_workflows, read_stored
from taskmasters.workflow.options import WorkflowOptions
from taskmasters.workflow.report import WorkflowReport
from taskmasters.workflow.tables import TABLES
from taskmasters.workflow.taskmaster import WorkflowTaskmaster

__all__ = ["workflow"]

_log = logging.getLogger("taskbus.workflow")


@click.command("workflow", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rules", metavar="RULES")
@click.option("--check", is_flag=True, help="Explain each workflow and exit; 2 if something in a file is wrong.")
@click.option(
    "--dry-run", is_flag=True, help="Print the tasks one run of each would make if every task completed, and exit."
)
@click_options(WorkflowOptions)
def workflow(rules: str, check: bool, dry_run: bool, config: Path | None, **flags: Any) -> Exit:
    """Run workflows: jobs that follow one another, as the TOML or YAML file, or folder of files, RULES says.

    Several instances may run on one state: they share the done tasks and the requests.
    """
    options = resolve(WorkflowOptions, flags, config=config).settings
    file = RuleFile(rules, load_workflows)
    clock = SystemClock()
    if check:
        for line in explain(file.rules, clock.now()):
            click.echo(line)
        return Exit.OK
    if dry_run:
        return _play(file.rules, clock.now())
    setup_logs(options.log_level, options.log_format)
    store = open_store(options.state, OUTBOX, TABLES)
    try:
        return asyncio.run(_work(file, options, store, clock))
    finally:
        store.close()


async def _work(file: RuleFile[list[Workflow]], options: WorkflowOptions, store: Store, clock: SystemClock) -> Exit:
    url = parse_url(options.bus)
    requests = None if options.requests == "-" else check_topic(options.requests)
    check_topics(file.rules, check_topic(options.topic), requests)
    engine = WorkflowEngine(Book(file.rules, read_stored), options.topic)
    await store.run(lambda tx: engine.open(tx, clock.now()))
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(url))
        producer = await stack.enter_async_context(await bus.producer())
        done = await stack.enter_async_context(await bus.consumer(options.topic, options.group))
        asked = None
        if requests is not None:
            asked = await stack.enter_async_context(await bus.consumer(requests, options.group))
        taskmaster = WorkflowTaskmaster(
            engine,
            store,
            producer,
            clock,
            done=done,
            requests=asked,
            dead_topic=lambda topic: options.dead_topic or dead_topic(topic),
            keep=options.keep,
        )
        about: dict[str, object] = {"file": file.path, "topic": options.topic, "bus": str(url), "state": store.shown}
        if options.status_port is not None:
            sync = stack.enter_context(ExitStack())
            report = WorkflowReport(taskmaster, file, about)
            sync.enter_context(serve_status(report, options.status_host, options.status_port))
        started = partial(
            _log.info, "running workflows", extra={"event": "started", "workflows": len(file.rules), **about}
        )

        def use(workflows: list[Workflow]) -> None:
            check_topics(workflows, options.topic, requests)
            taskmaster.use(Book(workflows, read_stored))

        await stack.enter_async_context(file.watched(use))
        finished = await run_until_stopped(taskmaster, options.kill_time, started)
        _log.info("stopped", extra={"event": "stopped", "sent": taskmaster.relay.sent})
        return Exit.OK if finished else Exit.INTERRUPTED


def _play(workflows: Sequence[Workflow], now: float) -> Exit:
    failed = False
    for one in workflows:
        try:
            for body in play(one, _example(one, now), now):
                click.echo(body)
        except SettingsError as error:
            click.echo(f"taskbus: {error}", err=True)
            failed = True
    return Exit.FAILED if failed else Exit.OK


def _example(one: Workflow, now: float) -> Task:
    instant = one.crons[0].schedule.next(int(now)) if one.crons else None
    meta = {} if instant is None else {CRON: instant_text(instant)}
    return Task(one.id, id="dry-run", meta=meta)
