"""The adapter for plain files and standard input and output."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Message, Producer
from bus.errors import BusURLError, ClosedError, UnsupportedError
from bus.lines.consumer import LinesConsumer
from bus.lines.place import Place
from bus.lines.sink import Sink, open_sink
from bus.lines.text import check_bodies
from bus.names import check_group, check_topic
from bus.registry import Clock
from bus.units import parse_positive_size
from bus.url import BusURL, option, parse_options

__all__ = ["LinesBus"]

_DEAD = ".dead"


@dataclass(frozen=True, slots=True)
class _Options:
    dead: str = option(str, "", "file for dead letters; default: the output's name + .dead, or TOPIC.dead for stdout")
    max_line: int = option(parse_positive_size, 64 * 1024**2, "longest line; a longer one is read in pieces")
    sync: bool = dataclasses.field(default=True, metadata={"help": "fsync a regular file before confirming"})


class LinesBus(Bus):
    """``lines:PATH``, ``lines:-`` and ``stdio:``: topic and group are names only.

    Reading yields every line of the input once, from its start; writing appends every topic to the one output, except
    that dead letters (topics ending in ``.dead``) go to a file of their own, made when the first one comes.
    """

    schemes = ("lines", "stdio")
    #: For a regular file; an instance on a pipe declares less.
    capabilities = Capabilities(
        durability=Durability.D3,
        groups=True,
        finite=True,
        retained=True,
        replay=True,
        nack_delay=float("inf"),
        attempts=True,
        history=True,
        order=Order.TOPIC,
        text_lines=True,
    )

    def __init__(self, url: BusURL, *, clock: Clock) -> None:
        super().__init__(url)
        if url.hosts or url.user is not None:
            raise BusURLError(f"{url.scheme}: takes a path, not a host; write {url.scheme}:tasks.jsonl")
        if "\0" in url.path:
            raise BusURLError(f"{url.scheme}: a path cannot hold a NUL byte")
        if url.scheme == "lines" and not url.path:
            raise BusURLError("lines: needs a path, as in lines:tasks.jsonl, or lines:- for standard input and output")
        if url.scheme == "stdio" and url.path not in ("", "-"):
            raise BusURLError(f"stdio: takes no path; write lines:{url.path}")
        self._options = parse_options(url, _Options)
        self._place = Place(url.path)
        self._clock = clock
        self._consumers: list[LinesConsumer] = []
        self._producers: list[_LinesProducer] = []
        self._closed = False
        self.capabilities = self._capabilities()

    def _capabilities(self) -> Capabilities:
        declared = dataclasses.replace(type(self).capabilities, max_size=self._options.max_line)
        if not self._place.regular_input:
            declared = dataclasses.replace(declared, groups=False, retained=False, replay=False)
        if not self._place.regular_output:
            return dataclasses.replace(declared, durability=Durability.D0)
        return declared if self._options.sync else dataclasses.replace(declared, durability=Durability.D2)

    async def producer(self) -> Producer:
        """A producer on the output, which is opened now; a named pipe is waited for until it has a reader.

        Raises:
            BusURLError, UnauthorisedError, FullError: the output cannot be opened.
        """
        self._check_open()
        sink = await open_sink(self._place, sync=self._options.sync)
        producer = _LinesProducer(sink, self._place, self._options, self.url.scheme)
        self._producers.append(producer)
        return producer

    async def consumer(self, topic: str, group: str | None) -> Consumer:
        """A consumer of every line of the input, which is opened now.

        Raises:
            BusURLError, UnauthorisedError: the input cannot be opened.
            UnsupportedError: a broadcast, or a second consumer on a pipe or standard input.
        """
        self._check_open()
        check_topic(topic)
        if group is None:
            raise UnsupportedError(f"the {self.url.scheme} bus has no broadcast", topic=topic)
        check_group(group)
        if self._consumers and not self._place.regular_input:
            raise UnsupportedError(f"{self._place} can be read by one consumer only", topic=topic)
        consumer = LinesConsumer(self._place, topic, group, self._options.max_line, self._clock)
        self._consumers.append(consumer)
        return consumer

    async def close(self) -> None:
        self._closed = True
        for consumer in self._consumers:
            await consumer.close()
        for producer in self._producers:
            await producer.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the {self.url.scheme} bus is closed")


class _LinesProducer(Producer):
    def __init__(self, sink: Sink, place: Place, options: _Options, scheme: str) -> None:
        self._sink = sink
        self._place = place
        self._options = options
        self._scheme = scheme
        self._dead: dict[str, Sink] = {}
        self._known: set[str] = set()
        self._closed = False

    async def publish_many(self, messages: Sequence[Message]) -> None:
        if self._closed:
            raise ClosedError("this producer is closed")
        check_bodies(messages, self._scheme, self._options.max_line)
        live: list[bytes] = []
        dead: dict[str, list[bytes]] = {}
        for message in messages:
            topic = message.topic
            if topic not in self._known:
                self._known.add(check_topic(topic))
            if topic.endswith(_DEAD):
                dead.setdefault(topic, []).append(message.body)
            else:
                live.append(message.body)
        # Dead letters first: if their file cannot be written, the call is repeated until it can, and whatever was
        # written before them would be there as many times.
        for topic, bodies in dead.items():
            bodies.append(b"")
            await (await self._dead_sink(topic)).write(b"\n".join(bodies))
        if live:
            live.append(b"")
            await self._sink.write(b"\n".join(live))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for sink in (self._sink, *self._dead.values()):
            await sink.close()

    async def _dead_sink(self, topic: str) -> Sink:
        if self._options.dead:
            path = self._options.dead
        elif self._place.ours:
            path = self._place.path + _DEAD
        else:
            path = topic
        if path not in self._dead:
            self._dead[path] = await open_sink(Place(path), sync=self._options.sync)
        return self._dead[path]
