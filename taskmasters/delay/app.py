"""``taskbus taskmaster delay``: keeps tasks until they are due."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from bus import check_group, check_topic, dead_topic
from task.errors import SettingsError
from task.exits import Exit
from task.logs import setup_logs
from task.settings import click_options, resolve
from taskmasters.clock import SystemClock
from taskmasters.delay.engine import FATES, DelayEngine
from taskmasters.delay.options import DelayOptions
from taskmasters.store import open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.stored.running import run_stored

__all__ = ["delay"]


@click.command("delay", context_settings={"help_option_names": ["-h", "--help"]})
@click_options(DelayOptions)
def delay(config: Path | None, **flags: Any) -> Exit:
    """Keep tasks until they are due, for as long as it takes, and send them then.

    A task says when in its meta run_at, and may say in run_topic where to. `taskbus send --delay` and workers with
    --delay-topic send such tasks where the bus cannot delay them itself. Several instances may share the topic.
    """
    options = resolve(DelayOptions, flags, config=config).settings
    dead = check_topic(options.dead_topic or dead_topic(check_topic(options.topic)))
    check_group(options.group)
    if dead == options.topic:
        raise SettingsError(f"--dead-topic {dead}: the tasks are received from there too; name another")
    setup_logs(options.log_level, options.log_format)
    store = open_store(options.state, OUTBOX)
    try:
        engine = DelayEngine(options.topic, dead)
        return asyncio.run(
            run_stored("delay", engine, store, SystemClock(), options, dead_topic=dead, fates=FATES, about={})
        )
    finally:
        store.close()
