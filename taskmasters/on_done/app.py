"""``taskbus taskmaster on-done``: makes tasks from tasks that are done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bus import BusURL, Capabilities, Message, OutputClosedError, Producer, check_topic, connect, dead_topic, parse_url
from task.errors import SettingsError
from task.exits import Exit
from task.logs import setup_logs
from task.settings import click_options, resolve
from task.status import serve_status
from task.worker_app import endpoint
from taskmasters.on_done.children import Family
from taskmasters.on_done.explain import explain
from taskmasters.on_done.options import OnDoneOptions
from taskmasters.on_done.report import OnDoneReport
from taskmasters.on_done.rules import OnDoneRule, check_topics, load_on_done_rules
from taskmasters.on_done.taskmaster import OnDoneTaskmaster
from taskmasters.reload import RuleFile
from taskmasters.running import run_until_stopped

if TYPE_CHECKING:
    from taskmasters.on_done.memory import Memory

__all__ = ["on_done"]

_log = logging.getLogger("taskbus.on-done")
#: Standard output, as a bus: one task a line.
_STDOUT = BusURL("stdio")
#: What is read without taking anything away.
_PLAIN = ("lines", "stdio")


@click.command("on-done", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rules", metavar="RULES")
@click.option("--check", is_flag=True, help="Explain each rule and what follows what, and exit; 2 if one is wrong.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent for the done tasks of --in, and send nothing.")
@click_options(OnDoneOptions)
def on_done(rules: str, check: bool, dry_run: bool, config: Path | None, **flags: Any) -> Exit:
    """Make tasks from tasks that are done, by the rules in the TOML or YAML file RULES.

    Several instances may run: they share the done tasks, and make the same child of the same parent.
    """
    options = resolve(OnDoneOptions, flags, config=config).settings
    file = RuleFile(rules, load_on_done_rules)
    if check:
        for line in explain(file.rules):
            click.echo(line)
        return Exit.OK
    if dry_run and options.in_ is None:
        raise SettingsError("--dry-run reads done tasks from --in PATH, or --in - for standard input")
    setup_logs(options.log_level, options.log_format)
    return asyncio.run(_work(file, options, dry_run))


async def _work(file: RuleFile[list[OnDoneRule]], options: OnDoneOptions, dry_run: bool) -> Exit:
    source, target = _endpoints(options, dry_run)
    dead = check_topic(options.dead_topic or dead_topic(options.topic))
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(connect(source))
        outlet = origin if target == source else await stack.enter_async_context(connect(target))

        def check(rules: Sequence[OnDoneRule]) -> None:
            check_topics(rules, options.topic, dead)
            _check_delays(rules, outlet.capabilities, str(target), dry_run)

        check(file.rules)
        producer = await stack.enter_async_context(await outlet.producer())
        consumer = await stack.enter_async_context(await origin.consumer(options.topic, options.group))
        memory = stack.enter_context(_memory(file, options, dry_run))
        taskmaster = OnDoneTaskmaster(
            Family(file.rules),
            consumer,
            _Preview(producer, dead) if dry_run else producer,
            group=options.group,
            dead_topic=dead,
            atomic=not dry_run and outlet is origin and origin.capabilities.atomic_finish,
            memory=memory,
        )
        about: dict[str, object] = {
            "file": file.path,
            "topic": options.topic,
            "group": options.group,
            "bus": str(source),
        }
        if options.status_port is not None:
            sync = stack.enter_context(ExitStack())
            report = OnDoneReport(taskmaster, file, {**about, "out": str(target)})
            sync.enter_context(serve_status(report, options.status_host, options.status_port))
        started = partial(_log.info, "making tasks", extra={"event": "started", "rules": len(file.rules), **about})

        def use(rules: list[OnDoneRule]) -> None:
            check(rules)
            if memory is None and Family(rules).gathers:
                raise SettingsError(f"{file.path} has rules with `all` now, for which a state is needed: restart")
            taskmaster.use(Family(rules))

        await stack.enter_async_context(file.watched(use))
        try:
            finished = await run_until_stopped(taskmaster, options.kill_time, started)
        except OutputClosedError:
            if not dry_run:
                raise
            return Exit.OK
        results = dict(taskmaster.stats.results)
        _log.info("stopped", extra={"event": "stopped", "sent": taskmaster.sent, **results})
        if dry_run and results.get("dead"):
            return Exit.FAILED
        return Exit.OK if finished else Exit.INTERRUPTED


@contextmanager
def _memory(file: RuleFile[list[OnDoneRule]], options: OnDoneOptions, dry_run: bool) -> Iterator[Memory | None]:
    if not (Family(file.rules).gathers or options.dedupe):
        yield None
        return
    from taskmasters.on_done.memory import MEMORY, Memory
    from taskmasters.store import open_store

    place = options.state or str(Path(file.path).with_suffix(".state.db"))
    store = open_store(":memory:" if dry_run else place, MEMORY)
    try:
        yield Memory(store, options.group, options.dedupe)
    finally:
        store.close()


def _endpoints(options: OnDoneOptions, dry_run: bool) -> tuple[BusURL, BusURL]:
    """Where done tasks come from and children go to. Plain input gives plain output, unless told otherwise."""
    source = endpoint(options.in_) if options.in_ is not None else parse_url(options.bus)
    if dry_run:
        if source.adapter not in _PLAIN:
            raise SettingsError(f"--dry-run would take the done tasks from {source}: give --in a file, or - for stdin")
        return source, _STDOUT
    if options.out is not None:
        return source, endpoint(options.out)
    return source, _STDOUT if source.adapter in _PLAIN else source


def _check_delays(rules: Sequence[OnDoneRule], capabilities: Capabilities, bus: str, dry_run: bool) -> None:
    longest = capabilities.publish_delay or 0.0
    for rule in rules:
        if rule.enabled and rule.delay > longest and not dry_run:
            raise SettingsError(f"rule {rule.id} has a delay, and {bus} can delay a task by {longest:g} s at most")


class _Preview(Producer):
    """Prints what would be sent. Dead letters were told on stderr already."""

    def __init__(self, producer: Producer, dead: str) -> None:
        self._producer = producer
        self._dead = dead

    async def publish_many(self, messages: Sequence[Message]) -> None:
        children = [message._replace(delay=0.0) for message in messages if message.topic != self._dead]
        if children:
            await self._producer.publish_many(children)

    async def close(self) -> None:
        await self._producer.close()
