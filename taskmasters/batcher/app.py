"""``taskbus taskmaster batcher``: makes the batches that tasks ask for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bus import BusURL, Message, OutputClosedError, check_group, check_topic, connect, dead_topic
from task.codec import decode, encode
from task.errors import SettingsError, TaskError
from task.exits import Exit
from task.logs import setup_logs
from task.settings import click_options, resolve
from task.task import derive_id
from taskmasters.batcher.engine import FATES, BatcherEngine
from taskmasters.batcher.making import Making
from taskmasters.batcher.options import BatcherOptions
from taskmasters.batcher.request import Places, read_request
from taskmasters.batcher.tables import REQUESTS
from taskmasters.clock import SystemClock
from taskmasters.cron.rules import load_cron_rules
from taskmasters.store import open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.stored.running import run_stored

__all__ = ["batcher"]

#: Standard output, as a bus: one task a line.
_STDOUT = BusURL("stdio")
#: Tasks printed at a time.
_PRINTED = 500


@click.command("batcher", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dry-run", "preview", metavar="PATH|-", help="Print the tasks that the requests in a file ask for, and exit."
)
@click_options(BatcherOptions)
def batcher(preview: str | None, config: Path | None, **flags: Any) -> Exit:
    """Make the batches that tasks ask for: a range of dates, the rows of a file, or each of both.

    A request is a task whose value has the options of `taskbus taskmaster batch` as parameters:
    ?type=load&from=2026-01&to=2026-02&task=... It is carried to its end over restarts and kills. Several instances may
    share the requests and one state.
    """
    options = resolve(BatcherOptions, flags, config=config).settings
    places = Places(rules=options.rules, workflows=options.workflows, rows=options.rows_folder)
    _check(places)
    dead = check_topic(options.dead_topic or dead_topic(check_topic(options.topic)))
    done = None if options.done_topic == "-" else check_topic(options.done_topic)
    check_group(options.group)
    if options.topic in (dead, done):
        raise SettingsError(f"the requests are received from {options.topic}: nothing else can be sent there")
    setup_logs(options.log_level, options.log_format)
    clock = SystemClock()
    if preview is not None:
        return _preview(preview, places, clock.now())
    engine = BatcherEngine(places, done, lambda topic: topic if topic == dead else dead_topic(topic))
    store = open_store(options.state, OUTBOX, REQUESTS)
    try:
        making = Making(engine, store, clock, options.keep)
        return asyncio.run(
            run_stored("batcher", engine, store, clock, options, dead_topic=dead, fates=FATES, about={}, beside=making)
        )
    finally:
        store.close()


def _check(places: Places) -> None:
    """Mistakes of the files that requests may name are told at the start. Raises SettingsError."""
    if places.rules is not None:
        load_cron_rules(places.rules)
    if places.workflows is not None:
        from taskmasters.workflow.load import load_workflows

        load_workflows(places.workflows)
    if places.rows is not None and not Path(places.rows).is_dir():
        raise SettingsError(f"--rows-folder {places.rows}: is no folder")


def _preview(path: str, places: Places, now: float) -> Exit:
    wrong: list[str] = []

    def bodies() -> Iterator[bytes]:
        with click.open_file(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    task = decode(line.rstrip(b"\n"))
                    request = read_request(task, task.id or derive_id("line", str(number)), now, places)
                    if not isinstance(request, str):
                        yield from map(encode, request.plan.tasks())
                except (TaskError, ValueError) as error:
                    wrong.append(f"{path}:{number}: {error}")

    try:
        asyncio.run(_print(bodies()))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    for line in wrong:
        click.echo(line, err=True)
    return Exit.FAILED if wrong else Exit.OK


async def _print(bodies: Iterator[bytes]) -> None:
    async with connect(_STDOUT) as bus:
        producer = await bus.producer()
        try:
            while some := list(itertools.islice(bodies, _PRINTED)):
                await producer.publish_many([Message("preview", body) for body in some])
        except OutputClosedError:
            pass
