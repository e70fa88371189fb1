"""The application around such a taskmaster: bus, status page, signals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any, Protocol

from bus import connect, parse_url
from task.exits import Exit
from task.status import serve_status
from taskmasters.clock import Clock
from taskmasters.reload import RuleFile
from taskmasters.running import run_until_stopped
from taskmasters.store import Store, outbox
from taskmasters.stored.report import StoredReport
from taskmasters.stored.taskmaster import Beside, Engine, StoredTaskmaster

__all__ = ["StoredOptions", "run_stored"]

_log = logging.getLogger("taskbus.taskmaster")


class StoredOptions(Protocol):
    """The settings that all of these have."""

    @property
    def bus(self) -> str: ...
    @property
    def status_port(self) -> int | None: ...
    @property
    def status_host(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def kill_time(self) -> float: ...


async def run_stored(
    name: str,
    engine: Engine,
    store: Store,
    clock: Clock,
    options: StoredOptions,
    *,
    dead_topic: str,
    fates: Sequence[str],
    about: Mapping[str, object],
    file: RuleFile[Any] | None = None,
    use: Callable[[Any], None] | None = None,
    beside: Beside | None = None,
) -> Exit:
    """Run until a signal comes. ``about`` is told at the start and on the status page.

    When the rules in ``file`` change, they are given to ``use``, which may refuse them. ``beside`` works on the store
    too.

    Raises:
        BusError, StateError: what keeps it from working.
    """
    url = parse_url(options.bus)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(url))
        producer = await stack.enter_async_context(await bus.producer())
        consumer = await stack.enter_async_context(await bus.consumer(options.topic, options.group))
        taskmaster = StoredTaskmaster(engine, store, consumer, producer, clock, dead_topic=dead_topic, beside=beside)
        said = {
            "taskmaster": name,
            **about,
            "topic": options.topic,
            "group": options.group,
            "bus": str(url),
            "state": store.shown,
        }
        if options.status_port is not None:
            report = StoredReport(name, fates, taskmaster, said, file)
            sync = stack.enter_context(ExitStack())
            sync.enter_context(serve_status(report, options.status_host, options.status_port))
        if file is not None and use is not None:
            await stack.enter_async_context(file.watched(use))
        waiting = await store.run(outbox.count)
        started = partial(_log.info, "working", extra={"event": "started", **said, "waiting": waiting})
        finished = await run_until_stopped(taskmaster, options.kill_time, started)
        results = dict(taskmaster.inbox.stats.results)
        _log.info("stopped", extra={"event": "stopped", "taskmaster": name, "sent": taskmaster.relay.sent, **results})
        return Exit.OK if finished else Exit.INTERRUPTED
