"""A worker application: the buses, the receiver and the launcher around one worker, from start to end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bus import BusURL, Consumer, Health, Producer, check_group, check_topic, dead_topic, parse_url
from task.connection import Connection
from task.drain import Drain
from task.errors import SettingsError
from task.exits import Exit
from task.launcher import Launcher
from task.options import WorkerOptions
from task.receiver import Receiver
from task.recorder import open_recorder
from task.retry import Backoff
from task.stats import Stats
from task.verdict import Judge
from task.watchdog import Watchdog
from task.worker import Launch, worker_type

if TYPE_CHECKING:
    from task.guarded import GuardedLauncher

__all__ = ["WorkerApp", "endpoint"]

_log = logging.getLogger("taskbus.worker")
#: Schemes of files and pipes, in which a topic is only a name.
_PLAIN = ("lines", "stdio")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):")
#: Seconds between looks at the health of the bus, for the status page.
_HEALTH_TICK = 2.0


def endpoint(text: str) -> BusURL:
    """What ``--in`` and ``--out`` name: ``-``, a file, or another bus's URL."""
    if text == "-":
        return BusURL("stdio")
    match = _SCHEME.match(text)
    if match and not Path(text).exists():
        return parse_url(text)
    return BusURL("lines", text)


class WorkerApp:
    """Runs one worker with these options. ``run`` once; ``stop`` from the same event loop."""

    def __init__(self, launch: Launch, options: WorkerOptions, *, kind: str | None = None) -> None:
        self.kind = worker_type(launch, kind)
        self.options = options
        self.stats = Stats()
        self._launch = launch
        self.source, self.target = _endpoints(options)
        self.topic = options.topic or self.kind
        self.group = options.group or self.kind
        self.done_topic = None if options.done_topic == "-" else options.done_topic
        self.dead_topic = options.dead_topic or dead_topic(self.topic)
        self._check_names()
        self.receiver: Receiver | None = None
        self.launcher: Launcher | None = None
        self.consumer: Consumer | None = None
        self.bus_health = Health(False, "starting")
        self._stops = 0
        self._opening: asyncio.Task[object] | None = None

    def _check_names(self) -> None:
        """Refuse what could not be published, or would be received again without end.

        Raises:
            BadNameError: for what is not a topic or group name.
            SettingsError: if results would go to where the tasks come from.
        """
        check_group(self.group)
        delay_topic = self.options.delay_topic
        if delay_topic is not None and self.source != self.target:
            raise SettingsError(
                f"--delay-topic {delay_topic}: tasks come back by the bus they came from, and --in and --out differ"
            )
        for topic, option in (
            (self.topic, ""),
            (self.done_topic, "--done-topic"),
            (self.dead_topic, "--dead-topic"),
            (delay_topic, "--delay-topic"),
        ):
            if topic is None:
                continue
            check_topic(topic)
            if option and topic == self.topic and self.source == self.target and self.source.adapter not in _PLAIN:
                raise SettingsError(
                    f"{option} {topic}: the tasks are received from there too, and would come again without end; "
                    "name another"
                )
        if self.source.adapter in _PLAIN and self.target.adapter in _PLAIN:
            read, written = _regular_file(self.source, 0), _regular_file(self.target, 1)
            if read is not None and read == written:
                raise SettingsError(
                    f"--out {self.target.path or '-'}: is the file the tasks are read from, and what is written would "
                    "be read again without end; name another"
                )

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stops > 0

    def stop(self) -> None:
        """Stop gracefully; a second call hastens."""
        self._stops += 1
        if self.receiver is not None:
            self.receiver.stop()
        elif self._opening is not None:
            self._opening.cancel()  # a named pipe without a reader, a server that does not answer

    async def run(self, opened: Callable[[], None] = lambda: None) -> Exit:
        """Work until the input ends or ``stop``. ``opened`` is called once input and output are open.

        Raises:
            BusError: if a bus cannot be used, or results can no longer be delivered.
            WorkerError, SettingsError: if the worker cannot run as asked.
        """
        if self._stops:
            return Exit.OK
        self._opening = me = asyncio.current_task()
        try:
            return await self._run(opened)
        except asyncio.CancelledError:
            if self.receiver is not None or not self._stops or me is None:
                raise
            while me.uncancel():
                pass
            return Exit.OK

    async def _run(self, opened: Callable[[], None]) -> Exit:
        options = self.options
        backoff = Backoff(options.retry_backoff, options.retry_delay, options.retry_max_delay)
        guarded = self._guarded()
        self.launcher = launcher = guarded or Launcher(self._launch, options)
        async with Connection(self.source, self.target, self.topic, self.group) as connection:
            self.consumer = connection.consumer
            if guarded is not None:
                await guarded.open(connection.source.capabilities)
            opened()

            drain = self._drain(connection)

            async def reopen() -> tuple[Consumer, Producer]:
                await connection.reopen()
                if drain is not None:
                    drain.moved(connection.source)
                self.consumer = connection.consumer
                return connection.consumer, connection.producer

            recorder = None
            if self.consumer.epoch is not None:
                recorder = open_recorder(str(self.source), self.topic, self.group, self.consumer.epoch)
            judge = Judge(
                topic=self.topic,
                group=self.group,
                done_topic=self.done_topic,
                dead_topic=self.dead_topic,
                retries=options.retries,
                backoff=backoff,
                max_attempts=max(options.max_attempts, options.retries + 1),
                identity=self._identity(connection),
                at_most_once=options.ack == "on-receipt",
                longest_delay=connection.source.capabilities.nack_delay or 0.0,
                delay_topic=options.delay_topic,
                tries=recorder.tried.tries if recorder is not None else None,
            )
            self.receiver = Receiver(
                self.kind,
                options,
                judge,
                launcher,
                self.stats,
                connection.consumer,
                connection.producer,
                connection.source.capabilities,
                atomic=connection.atomic,
                recorder=recorder,
                drain=drain,
                watchdog=self._watchdog(connection),
                reopen=reopen,
            )
            if guarded is not None:
                guarded.attach(judge, self.receiver.refuse)
            _log.info(
                "working",
                extra={
                    "event": "started",
                    "task_type": self.kind,
                    "topic": self.topic,
                    "group": self.group,
                    "bus": str(self.source),
                    "out": str(self.target),
                },
            )
            watch = asyncio.create_task(self._watch(connection))
            try:
                await self.receiver.run()
            finally:
                watch.cancel()
                if guarded is not None:
                    await guarded.close()
                if recorder is not None:
                    recorder.close(forget=not self.receiver.held)
            return self._summary()

    def _guarded(self) -> GuardedLauncher | None:
        if self.options.guard is None:
            return None
        from task.guarded import GuardedLauncher

        return GuardedLauncher(self._launch, self.options, self.group, self.stats)

    def _identity(self, connection: Connection) -> str | None:
        """What no other consumer's deliveries have in common; None if their ids may come again with other messages."""
        epoch = connection.consumer.epoch
        if connection.atomic or connection.target.capabilities.dedupe is None or epoch is None:
            return None
        parts = "\n".join((str(self.source), self.topic, self.group, epoch))
        return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()

    def _drain(self, connection: Connection) -> Drain | None:
        source = connection.source
        if not self.options.drain or source.capabilities.finite:
            return None
        return Drain(source, self.topic, self.group, connection.consumer.lease)

    def _watchdog(self, connection: Connection) -> Watchdog | None:
        able, after = connection.source.capabilities, self.options.stall_after
        # Where messages are assigned ahead, what is ready may well be somebody else's to take.
        if not after or not able.depth or able.partitioned or able.finite:
            return None
        return Watchdog(after, self.stats, connection.depth)

    async def _watch(self, connection: Connection) -> None:
        """Keep the health shown on the status page fresh."""
        while True:
            self.bus_health = await connection.source.health()
            await asyncio.sleep(_HEALTH_TICK)

    def _summary(self) -> Exit:
        stats = self.stats
        _log.info(
            "stopped" if self._stops else "the input has ended",
            extra={
                "event": "stopped",
                "received": stats.received,
                "elapsed": round(stats.elapsed, 3),
                **dict(stats.results),
            },
        )
        receiver = self.receiver
        if receiver is not None and receiver.held:
            _log.warning("handed back %d tasks unsettled", receiver.held, extra={"event": "unsettled"})
            return Exit.BUS if receiver.trouble else Exit.INTERRUPTED
        if stats.interrupted:
            _log.warning("cut short and handed back %d tasks", stats.interrupted, extra={"event": "interrupted"})
            return Exit.INTERRUPTED
        return Exit.OK


def _regular_file(url: BusURL, standard: int) -> tuple[int, int] | None:
    """Which regular file this is, if it is one. ``standard`` is the descriptor that a missing path stands for."""
    try:
        found = os.fstat(standard) if url.path in ("", "-") else os.stat(url.path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _endpoints(options: WorkerOptions) -> tuple[BusURL, BusURL]:
    """The buses to receive from and to publish to. Plain input gives plain output, on stdout unless told otherwise."""
    source = endpoint(options.in_) if options.in_ is not None else parse_url(options.bus)
    if options.out is not None:
        return source, endpoint(options.out)
    return source, BusURL("stdio") if source.adapter in _PLAIN else source
