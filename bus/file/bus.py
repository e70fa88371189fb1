"""The adapter for a directory of topics."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import ParamSpec, TypeVar

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Depth, Health, Peeked, Producer
from bus.errors import BusURLError, ClosedError
from bus.facts import Fact, Look
from bus.file.agreeing import agree
from bus.file.appending import Appending
from bus.file.consumer import FileConsumer
from bus.file.group import Broadcast, StoredGroup
from bus.file.layout import Layout
from bus.file.looking import depth, peek
from bus.file.producer import FileProducer
from bus.file.reading import Reader
from bus.lines.batcher import Batcher
from bus.lines.trouble import explain
from bus.names import check_group, check_topic
from bus.registry import Clock
from bus.steady import SteadyClock
from bus.units import parse_positive_duration, parse_positive_size
from bus.url import BusURL, option, parse_options

__all__ = ["FileBus"]

Params = ParamSpec("Params")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Options:
    lease: float = option(parse_positive_duration, 30.0, "how long a delivery stays with its consumer unless extended")
    max_size: int = option(parse_positive_size, 1024**2, "largest message; a longer line is read in pieces")
    sync: bool = dataclasses.field(default=True, metadata={"help": "fsync before confirming"})
    poll: float = option(parse_positive_duration, 0.05, "longest time until the writing of another process is noticed")


class FileBus(Bus):
    """``file:DIRECTORY``: each topic is a file of lines, ``TOPIC.jsonl``, which people may read and append to.

    Any number of consumers in any number of processes of one host share a group. Nothing is ever removed: a group made
    later reads everything.
    """

    schemes = ("file",)
    capabilities = Capabilities(
        durability=Durability.D3,
        groups=True,
        shared=True,
        processes=True,
        retained=True,
        replay=True,
        lease=True,
        nack_delay=float("inf"),
        attempts=True,
        history=True,
        order=Order.TOPIC,
        atomic_finish=True,
        broadcast=True,
        depth=True,
        depth_tells_delayed=True,
        peek=True,
        topics=True,
        text_lines=True,
        max_size=1024**2,
    )

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        if url.hosts or url.user is not None:
            raise BusURLError("file: takes a directory, not a host; write file:./tasks or file:///var/tasks")
        if not url.path or "\0" in url.path:
            raise BusURLError("file: needs a directory, as in file:./tasks")
        self._options = parse_options(url, _Options)
        self.capabilities = dataclasses.replace(
            type(self).capabilities,
            durability=Durability.D3 if self._options.sync else Durability.D2,
            max_size=self._options.max_size,
        )
        self.layout = Layout(os.path.realpath(url.path))
        # Its own, as what it shows is agreed upon by those who share the directory.
        self._clock = SteadyClock() if isinstance(clock, SteadyClock) else clock
        self._thread = ThreadPoolExecutor(1, "taskbus-file")
        self._publishing: Batcher[Mapping[str, bytes]] = Batcher(self._publish)
        self._open: set[FileProducer | FileConsumer] = set()
        self._stopped = False
        self._closing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the directory if it is missing.

        Raises:
            BusURLError, UnauthorisedError: it cannot be made or is not a directory.
        """
        await self.in_thread(self.layout.make_root)
        if isinstance(self._clock, SteadyClock):
            await self.in_thread(agree, self.layout.clock, self._clock)

    async def producer(self) -> Producer:
        self._check_open()
        producer = FileProducer(self, self._options.max_size)
        self._open.add(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        """A consumer; a group is made if it does not exist.

        Raises:
            BadNameError, CorruptError, FullError, UnauthorisedError.
        """
        self._check_open()
        options = self._options
        reader = Reader(self.layout.log(check_topic(topic)), options.max_size)
        members: StoredGroup | Broadcast
        if group is None:
            members = Broadcast(self.layout, topic, reader, self._clock, sync=options.sync)
        else:
            check_group(group)
            members = StoredGroup(self.layout, topic, group, reader, self._clock, sync=options.sync)
        await self.in_thread(members.join)
        if self._closing is not None:
            members.close()
            raise ClosedError("this file bus was closed meanwhile")
        consumer = FileConsumer(self, topic, group, members, options.lease, options.poll)
        self._open.add(consumer)
        return consumer

    async def depth(self, topic: str, group: str) -> Depth:
        self._check_open()
        check_topic(topic)
        check_group(group)
        return await asyncio.to_thread(depth, self.layout, topic, group, self._options.max_size, self._clock())

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        self._check_open()
        check_topic(topic)
        if group is not None:
            check_group(group)
        return await asyncio.to_thread(peek, self.layout, topic, group, limit, self._options.max_size, self._clock())

    async def topics(self) -> list[str]:
        self._check_open()
        return await self.in_thread(self.layout.topics)

    async def groups(self, topic: str) -> list[str]:
        self._check_open()
        return await self.in_thread(self.layout.groups, check_topic(topic))

    async def diagnose(self, look: Look) -> list[Fact]:
        from bus.file.diagnose import diagnose

        return await diagnose(self.layout.root, lease=self._options.lease, sync=self._options.sync)

    async def health(self) -> Health:
        if self._closing is not None:
            return Health(False, "this file bus is closed")
        trouble = next((consumer.trouble for consumer in self._consumers() if consumer.trouble), "")
        return Health(not trouble, trouble or f"directory {self.layout.root}")

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def append(self, lines: Mapping[str, bytes]) -> None:
        """Append whole lines by topic, together with what others append now, and wake who waits for them."""
        await self._publishing.submit(lines)
        self.wake(lines)

    async def in_thread(self, work: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs) -> Result:
        """Do blocking work in the one thread of this bus. Raises ClosedError after the bus has closed."""
        if self._stopped:
            raise ClosedError("this file bus is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args, **kwargs))

    def wake(self, topics: Iterable[str]) -> None:
        """Have the consumers of these topics look at once."""
        woken = set(topics)
        for consumer in self._consumers():
            if consumer.topic in woken:
                consumer.wake()

    def due(self, delay: float) -> float:
        """When something delayed from now on is due; 0 = at once."""
        return self._clock() + delay if delay > 0 else 0.0

    def forget(self, closed: FileProducer | FileConsumer) -> None:
        """A producer or consumer made here closed itself."""
        self._open.discard(closed)

    async def _close(self) -> None:
        while self._open:
            await asyncio.gather(*(each.close() for each in list(self._open)))
        await self._publishing.drain()
        self._stopped = True
        self._thread.shutdown()

    async def _publish(self, batch: list[Mapping[str, bytes]]) -> None:
        lines: dict[str, list[bytes]] = {}
        for one in batch:
            for topic, data in one.items():
                lines.setdefault(topic, []).append(data)
        await self.in_thread(self._append, {topic: b"".join(data) for topic, data in lines.items()})

    def _append(self, lines: Mapping[str, bytes]) -> None:
        try:
            with Appending(self.layout, lines, sync=self._options.sync) as appending:
                appending.write(lines)
        except OSError as error:
            names = ", ".join(islice(lines, 5))
            raise explain(error, f"cannot append to {names} in {self.layout.root}") from error

    def _consumers(self) -> list[FileConsumer]:
        return [each for each in self._open if isinstance(each, FileConsumer)]

    def _check_open(self) -> None:
        if self._closing is not None:
            raise ClosedError("this file bus is closed")
