"""``taskbus taskmaster alerts``: tells people of what went wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from bus import Bus, Consumer, NoSuchTopicError, UnsupportedError, check_topic, connect, parse_url
from task.codec import DEFAULT_MAX_SIZE, decode
from task.errors import DecodeError, SettingsError
from task.exits import Exit
from task.logs import setup_logs
from task.settings import click_options, resolve
from task.status import serve_status
from task.task import derive_id
from task.times import format_time
from taskmasters.alerts.deliver import DeliveryError, deliver
from taskmasters.alerts.engine import AlertEngine
from taskmasters.alerts.explain import explain
from taskmasters.alerts.happening import inherit
from taskmasters.alerts.notifier import orphans, waiting
from taskmasters.alerts.options import AlertsOptions
from taskmasters.alerts.report import AlertsReport
from taskmasters.alerts.rules import AlertFile, load_alerts
from taskmasters.alerts.tables import ALERTS
from taskmasters.alerts.taskmaster import AlertsTaskmaster
from taskmasters.alerts.words import headline, text
from taskmasters.clock import SystemClock
from taskmasters.cron.keep import leading
from taskmasters.leader import Leader
from taskmasters.reload import RuleFile
from taskmasters.running import run_until_stopped
from taskmasters.standby import StandBy, sole_store
from taskmasters.store import Arrival, Store, open_store

__all__ = ["alerts"]

_log = logging.getLogger("taskbus.alerts")


@click.command("alerts", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rules", metavar="RULES")
@click.option("--check", is_flag=True, help="Explain each rule and exit; 2 if one is wrong.")
@click.option(
    "--dry-run", "preview", metavar="PATH|-", help="Print what would be told of the done tasks in a file, and exit."
)
@click.option("--test", is_flag=True, help="Tell every channel that this is a test, and exit; 1 if one fails.")
@click_options(AlertsOptions)
def alerts(rules: str, check: bool, preview: str | None, test: bool, config: Path | None, **flags: Any) -> Exit:
    """Tell people of alerts, of tasks given up and of tasks that are late, as the TOML or YAML file RULES says."""
    options = resolve(AlertsOptions, flags, config=config).settings
    file = RuleFile(rules, load_alerts)
    if check:
        for line in explain(file.rules):
            click.echo(line)
        return Exit.OK
    setup_logs(options.log_level, options.log_format)
    clock = SystemClock()
    if preview is not None:
        return _preview(file.rules, preview, clock.now())
    if test:
        return _test(file.rules, clock.now())
    for name in (options.topic, options.dead_topic):
        check_topic(name)
    exhausted = None if options.failed_topic == "-" else check_topic(options.failed_topic)
    with sole_store(options.state, "alerts", options.lease, ALERTS) as (store, leader):
        return asyncio.run(_work(file, options, exhausted, store, leader, clock))


async def _work(
    file: RuleFile[AlertFile],
    options: AlertsOptions,
    exhausted: str | None,
    store: Store,
    leader: Leader | None,
    clock: SystemClock,
) -> Exit:
    url = parse_url(options.bus)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(url))
        producer = await stack.enter_async_context(await bus.producer())
        told = 0
        wanted = file.rules

        def check(rules: AlertFile) -> None:
            topics = AlertEngine(rules).topics
            if {options.topic, exhausted} & {*topics} or options.topic == exhausted:
                raise SettingsError(
                    f"tasks with a deadline, done tasks ({options.topic}) and tasks given up need topics of their own"
                )
            if topics and not bus.capabilities.groups:
                raise SettingsError(f"{url} has no groups: to watch a deadline would take the tasks from their workers")

        @asynccontextmanager
        async def opened() -> AsyncIterator[AlertsTaskmaster]:
            nonlocal told
            engine = AlertEngine(wanted)
            async with AsyncExitStack() as inner:

                async def receive(topic: str) -> Consumer:
                    return await inner.enter_async_context(await bus.consumer(topic, options.group))

                sent = {}
                for topic, workers in engine.topics.items():
                    await _leave_to_workers(bus, topic, workers, options.group)
                    sent[topic] = await receive(topic)
                taskmaster = AlertsTaskmaster(
                    engine,
                    store,
                    producer,
                    clock,
                    done=await receive(options.topic),
                    exhausted=None if exhausted is None else await receive(exhausted),
                    sent=sent,
                    health=bus.health,
                    dead_topic=options.dead_topic,
                    keep=options.keep,
                )
                await _tell_of_the_lost(store, engine.file, file.path, clock)
                try:
                    yield taskmaster
                finally:
                    told += sum(notifier.told for notifier in taskmaster.notifiers)

        check(wanted)
        standby = StandBy(leader, options.lease, opened)

        def use(rules: AlertFile) -> None:
            nonlocal wanted
            check(rules)
            wanted = rules
            standby.again()

        about: dict[str, object] = {"file": file.path, "topic": options.topic, "bus": str(url), "state": store.shown}
        if options.status_port is not None:
            sync = stack.enter_context(ExitStack())
            report = AlertsReport(standby, file, about)
            sync.enter_context(serve_status(report, options.status_host, options.status_port))
        started = partial(_log.info, "watching", extra={"event": "started", "rules": len(wanted.rules), **about})
        await stack.enter_async_context(leading(leader))
        await stack.enter_async_context(file.watched(use))
        finished = await run_until_stopped(standby, options.kill_time, started)
        _log.info("stopped", extra={"event": "stopped", "told": told})
        return Exit.OK if finished else Exit.INTERRUPTED


async def _tell_of_the_lost(store: Store, file: AlertFile, path: str, clock: SystemClock) -> None:
    """What was counted for rules that are no more is told by another; of lost channels the log tells."""
    rules = [rule for rule in file.rules if rule.enabled]
    moved = await store.run(lambda tx: inherit(tx, rules, clock.now()))
    if moved:
        _log.warning(
            "%d groups of alerts were counted for rules that are not in %s any more: the first rule tells of them",
            moved,
            path,
            extra={"event": "alerts-inherited"},
        )
    lost = await store.run(lambda tx: orphans(tx, [channel.id for channel in file.channels]))
    if lost:
        _log.error(
            "%d alerts wait for channels that are not in %s any more", lost, path, extra={"event": "alerts-lost"}
        )


async def _leave_to_workers(bus: Bus, topic: str, workers: Sequence[str], ours: str) -> None:
    """If the first group of a topic were ours, what it has received would be gone before its workers first start."""
    try:
        others = set(await bus.groups(topic)) - {ours}
    except (UnsupportedError, NoSuchTopicError):
        others = set()
    if others:
        return
    for group in dict.fromkeys(workers):
        async with await bus.consumer(topic, group):
            _log.info("the tasks of %s are kept for the group %s", topic, group, extra={"event": "group-made"})


def _preview(file: AlertFile, path: str, now: float) -> Exit:
    """What would be told, by rule, if these done tasks came now."""
    failed = False
    engine = AlertEngine(file)
    store = open_store(":memory:", ALERTS)
    try:
        with click.open_file(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    task = decode(line, 2 * DEFAULT_MAX_SIZE)
                except DecodeError as error:
                    click.echo(f"{path}:{number}: {error}", err=True)
                    failed = True
                    continue
                arrival = Arrival(task, task.id or derive_id("line", str(number)))
                store.call(lambda tx, a=arrival: engine.done(tx, [a], now))  # type: ignore[misc]
        end = now + max(rule.collect for rule in file.rules)
        store.call(lambda tx: engine.tick(tx, end, end))
        for channel, told in store.call(waiting):
            click.echo(f"to {channel}: {headline(told)}\n{text(told)}\n")
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    finally:
        store.close()
    return Exit.FAILED if failed else Exit.OK


def _test(file: AlertFile, now: float) -> Exit:
    moment = format_time(datetime.fromtimestamp(now, UTC))
    example = {"id": "test", "task": "a-task", "msg": "this is a test of the channel", "time": moment}
    group = {"type": "test", "job": None, "kind": "alert", "moments": [], "examples": [example]}
    told = {
        "rule": "test",
        "time": moment,
        "count": 1,
        "groups": [{**group, "count": 1, "first": moment, "last": moment}],
    }
    code = Exit.OK
    for channel in file.channels:
        try:
            deliver(channel, {**told, "id": derive_id("test", channel.id, moment)})
            click.echo(f"{channel.id}: told {channel.shown}")
        except DeliveryError as error:
            click.echo(f"{channel.id}: {error}", err=True)
            code = Exit.FAILED
    return code
