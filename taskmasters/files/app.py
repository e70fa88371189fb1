"""``taskbus taskmaster files``: makes tasks when files arrive."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
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
from taskmasters.cron.keep import leading
from taskmasters.files.engine import FileEngine
from taskmasters.files.explain import explain, preview
from taskmasters.files.options import FilesOptions
from taskmasters.files.report import FilesReport
from taskmasters.files.rules import FileRule, load_file_rules
from taskmasters.files.source import Source, open_source
from taskmasters.files.tables import FILES
from taskmasters.files.taskmaster import FilesTaskmaster
from taskmasters.leader import Leader
from taskmasters.reload import RuleFile
from taskmasters.running import run_until_stopped
from taskmasters.standby import StandBy, sole_store
from taskmasters.store import Store, open_store
from taskmasters.store.outbox import OUTBOX

__all__ = ["files"]

_log = logging.getLogger("taskbus.files")
#: Standard output, as a bus: one task a line.
_STDOUT = BusURL("stdio")


@click.command("files", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rules", metavar="RULES")
@click.option("--check", is_flag=True, help="Explain each rule and exit; 2 if one is wrong.")
@click.option("--dry-run", is_flag=True, help="Print the tasks for what is there now and exit.")
@click_options(FilesOptions)
def files(rules: str, check: bool, dry_run: bool, config: Path | None, **flags: Any) -> Exit:
    """Make tasks when files arrive, by the rules in the TOML or YAML file RULES."""
    options = resolve(FilesOptions, flags, config=config).settings
    file = RuleFile(rules, load_file_rules)
    clock = SystemClock()
    if check:
        for line in explain(file.rules, clock.now()):
            click.echo(line)
        return Exit.OK
    setup_logs(options.log_level, options.log_format)
    place = options.state or str(Path(rules).with_suffix(".state.db"))
    if dry_run:
        is_url = "://" in place or place.startswith("sqlite:")
        store = open_store(place if is_url or Path(place).exists() else ":memory:", OUTBOX, FILES)
        try:
            return asyncio.run(_preview(file.rules, store, clock))
        finally:
            store.close()
    sources = _Sources()
    sources.check(file.rules)
    with sole_store(place, "files", options.lease, OUTBOX, FILES) as (store, leader):
        return asyncio.run(_work(file, options, store, leader, clock, sources))


class _Sources:
    """One source for all rules that look in the same place."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str | None, bool], Source] = {}

    def __call__(self, rule: FileRule) -> Source:
        key = (rule.pattern.scheme, rule.endpoint, rule.anonymous)
        if key not in self._open:
            self._open[key] = open_source(key[0], key[1], anonymous=key[2])
        return self._open[key]

    def check(self, rules: Sequence[FileRule]) -> None:
        """Whether there is one for each of these. Raises MissingExtraError."""
        for rule in rules:
            if rule.enabled:
                self(rule)


async def _preview(rules: Sequence[FileRule], store: Store, clock: Clock) -> Exit:
    now = clock.now()
    engine = FileEngine(rules)
    await store.run(lambda tx: engine.open(tx, now, retire=False))
    sources = _Sources()
    found = [(rule, sources(rule)) for rule in engine.rules.values()]
    complete = True
    async with connect(_STDOUT) as bus:
        producer = await bus.producer()
        try:
            for line in preview(engine, found, now):
                if isinstance(line, bytes):
                    await producer.publish_many([Message("preview", line)])
                else:
                    click.echo(line, err=True)
                    complete = complete and " waits with " in line
        except OutputClosedError:
            return Exit.OK
    return Exit.OK if complete else Exit.FAILED


async def _work(
    file: RuleFile[list[FileRule]],
    options: FilesOptions,
    store: Store,
    leader: Leader | None,
    clock: Clock,
    sources: _Sources,
) -> Exit:
    url = parse_url(options.bus)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(url))
        producer = await stack.enter_async_context(await bus.producer())
        done = Counter[str]()

        @asynccontextmanager
        async def opened() -> AsyncIterator[FilesTaskmaster]:
            taskmaster = FilesTaskmaster(file.rules, store, producer, clock, sources, keep=options.keep)
            try:
                yield taskmaster
            finally:
                done.update(files=taskmaster.files, sent=taskmaster.relay.sent)

        standby = StandBy(leader, options.lease, opened)
        about: dict[str, object] = {"file": file.path, "bus": str(url), "state": store.shown}
        if options.status_port is not None:
            sync = stack.enter_context(ExitStack())
            report = FilesReport(standby, file, about)
            sync.enter_context(serve_status(report, options.status_host, options.status_port))
        enabled = sum(rule.enabled for rule in file.rules)
        started = partial(_log.info, "making tasks", extra={"event": "started", "rules": enabled, **about})

        def use(rules: list[FileRule]) -> None:
            sources.check(rules)
            if standby.current is not None:
                standby.current.use(rules)

        await stack.enter_async_context(leading(leader))
        await stack.enter_async_context(file.watched(use))
        finished = await run_until_stopped(standby, options.kill_time, started)
        _log.info("stopped", extra={"event": "stopped", **done})
        return Exit.OK if finished else Exit.INTERRUPTED
