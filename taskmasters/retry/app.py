"""``taskbus taskmaster retry``: has tasks that ended with an error done again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bus import Message, OutputClosedError, Producer, check_group, check_topic, connect, dead_topic
from bus.url import BusURL
from task.errors import SettingsError
from task.exits import Exit
from task.logs import setup_logs
from task.settings import click_options, resolve
from task.worker_app import endpoint
from taskmasters.clock import SystemClock
from taskmasters.reload import RuleFile
from taskmasters.retry.engine import FATES, RetryEngine
from taskmasters.retry.explain import explain
from taskmasters.retry.options import RetryOptions
from taskmasters.retry.records import RECORDS
from taskmasters.retry.rules import RetryRule, check_topics, load_retry_rules
from taskmasters.store import Arrival, Fate, Inbox, open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.stored.alone import EngineAlone
from taskmasters.stored.running import run_stored

__all__ = ["retry"]

#: What is read without taking anything away.
_PLAIN = ("lines", "stdio")
#: A moment by which everything is due.
_EVER = 1e15


@click.command("retry", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rules", metavar="RULES")
@click.option("--check", is_flag=True, help="Explain each rule and exit; 2 if one is wrong.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent for the done tasks of --in, and send nothing.")
@click_options(RetryOptions)
def retry(rules: str, check: bool, dry_run: bool, config: Path | None, **flags: Any) -> Exit:
    """Have tasks that ended with an error done again later, by the rules in the TOML or YAML file RULES.

    Tasks keep their id. Those given up become dead letters, with the history of their attempts. Several instances may
    share the done tasks and one state.
    """
    options = resolve(RetryOptions, flags, config=config).settings
    file = RuleFile(rules, load_retry_rules)
    if check:
        for line in explain(file.rules):
            click.echo(line)
        return Exit.OK
    dead = check_topic(options.dead_topic or dead_topic(check_topic(options.topic)))
    failed = None if options.failed_topic == "-" else check_topic(options.failed_topic)
    check_group(options.group)
    check_topics(file.rules, options.topic, dead, failed)
    engine = RetryEngine(file.rules, failed_topic=failed, keep=options.keep)
    setup_logs(options.log_level, options.log_format)
    if dry_run:
        return asyncio.run(_preview(engine, options, dead))
    if options.in_ is not None:
        raise SettingsError("--in is for --dry-run")

    def use(changed: list[RetryRule]) -> None:
        check_topics(changed, options.topic, dead, failed)
        engine.use(changed)

    store = open_store(options.state, OUTBOX, RECORDS)
    try:
        return asyncio.run(
            run_stored(
                "retry",
                engine,
                store,
                SystemClock(),
                options,
                dead_topic=dead,
                fates=FATES,
                about={"file": rules, "rules": len(file.rules)},
                file=file,
                use=use,
            )
        )
    finally:
        store.close()


async def _preview(engine: RetryEngine, options: RetryOptions, dead: str) -> Exit:
    """Print what would be sent for the done tasks of a file, in the order in which it would be."""
    source = None if options.in_ is None else endpoint(options.in_)
    if source is None or source.adapter not in _PLAIN:
        raise SettingsError("--dry-run reads done tasks from --in PATH, or --in - for standard input")
    clock, alone = SystemClock(), EngineAlone(engine, RECORDS)

    async def apply(arrivals: Sequence[Arrival]) -> Sequence[Fate]:
        return alone.apply(arrivals, clock.now())

    try:
        async with connect(source) as bus, connect(BusURL("stdio")) as out:
            inbox = Inbox(await bus.consumer(options.topic, options.group), _Nowhere(), apply, dead_topic=dead)
            await inbox.run()
            producer = await out.producer()
            try:
                await producer.publish_many([Message("preview", one.body) for one in alone.tick(_EVER)])
            except OutputClosedError:
                return Exit.OK
            return Exit.FAILED if inbox.stats.results["dead"] else Exit.OK
    finally:
        alone.close()


class _Nowhere(Producer):
    """Takes the dead letters of a preview, which were told on stderr."""

    async def publish_many(self, messages: Sequence[Message]) -> None:
        """Drop them."""

    async def close(self) -> None:
        """Nothing to close."""
