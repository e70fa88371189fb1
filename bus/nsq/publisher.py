"""Confirmed publishing to whichever nsqd takes it, and the producer on top of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bus.contract import Message, Producer
from bus.errors import BusError, ClosedError, TooLargeError, UnconfirmedError, UnreachableError, UnsupportedError
from bus.names import check_topic
from bus.nsq import protocol
from bus.nsq.connection import Connection
from bus.nsq.nodes import Nodes
from bus.nsq.options import Address, NsqOptions
from bus.nsq.trouble import refused
from bus.units import format_duration

__all__ = ["NsqProducer", "Publisher"]

#: The most messages and bytes of one MPUB; nsqd takes 5 MiB by default.
_MOST, _MOST_BYTES = 1000, 1024**2
#: Seconds for which a server that did not answer is tried last.
_AVOID = 5.0
#: Seconds to wait for the refusal of a size.
_REFUSAL = 0.5


class _Command(NamedTuple):
    topic: str
    bodies: Sequence[bytes]
    delay: float = 0.0

    @property
    def data(self) -> bytes:
        """What is sent; made only then, so that the server takes one while the next is made."""
        return protocol.publish(self.topic, self.bodies, self.delay)

    @property
    def largest(self) -> int:
        """Bytes of the largest message in it."""
        return max(map(len, self.bodies))


class Publisher:
    """One connection per nsqd, shared by all producers of a bus."""

    def __init__(self, nodes: Nodes, options: NsqOptions, tls: ssl.SSLContext | None) -> None:
        self._nodes = nodes
        self._options = options
        self._tls = tls
        self._open: dict[Address, Connection] = {}
        self._avoid: dict[Address, float] = {}
        self._opening: dict[Address, asyncio.Lock] = {}
        self._closed = False
        self._turns = itertools.count()

    async def publish(self, commands: Sequence[_Command]) -> None:
        """Return when every command is confirmed, by one nsqd or another.

        Raises:
            UnreachableError: none of them was sent. UnconfirmedError: some were.
            UnauthorisedError, TooLargeError, BadNameError, FullError.
        """
        left, sent, last = list(commands), False, None
        tried = set[Address]()
        while nodes := await self._untried(tried):
            for node in nodes:
                tried.add(node)
                try:
                    connection = await self.connection(node)
                except BusError as error:
                    if refused(error):
                        raise
                    last = error
                    continue
                sent = True
                left, last = await self._try(connection, left)
                if not left:
                    return
                if connection.closed.is_set():
                    await self._check_size(node, max(left, key=lambda command: command.largest))
                self._give_up_on(node)
        topics = ", ".join(sorted({command.topic for command in left}))
        if sent:
            if last is not None and not isinstance(last, UnreachableError):
                raise last
            raise UnconfirmedError(f"topic {topics}: no nsqd confirmed it: {last}; publish again")
        raise UnreachableError(f"topic {topics}: {last or 'nsqlookupd knows no nsqd'}")

    async def _try(self, connection: Connection, commands: list[_Command]) -> tuple[list[_Command], BusError | None]:
        """Those which this nsqd did not confirm, and why."""
        answers: list[asyncio.Future[bytes]] = []
        timer = asyncio.get_running_loop().call_later(
            self._options.timeout,
            connection.abort,
            UnreachableError(f"nsqd {connection.where} confirms nothing"),
        )
        try:
            for command in commands:
                answers.append(connection.ask(command.data, command.topic))
                await connection.drain()
            results = await _outcomes(answers)
        finally:
            timer.cancel()
            for answer in answers:
                answer.cancel()  # nobody waits for it any more
        left: list[_Command] = []
        last: BusError | None = None
        for command, result in zip(commands, results, strict=True):
            if isinstance(result, BusError):
                if refused(result):
                    raise result
                left.append(command)
                last = last or result
            elif isinstance(result, BaseException):
                raise result
        return left, last

    async def _check_size(self, node: Address, command: _Command) -> None:
        """Ask whether a size was the reason for which nsqd ended a connection.

        It answers before it does, but where it leaves a message unread the answer is often lost on the way. So only the
        size is sent: if it is too large the answer comes through, and if it is not nsqd waits for the message in vain.

        Raises:
            TooLargeError.
        """
        connection = Connection(node, self._options, self._tls)
        with contextlib.suppress(UnreachableError, TimeoutError):
            async with asyncio.timeout(_REFUSAL):
                await connection.open()
                try:
                    await connection.ask(protocol.announce(command.topic, command.largest), command.topic)
                finally:
                    await connection.close()

    async def _untried(self, tried: set[Address]) -> list[Address]:
        """First the nodes, each first in its turn, those that failed lately at the end; then those come since."""
        if tried:
            return list(set(await self._nodes.ask()) - tried) if self._nodes.changing else []
        nodes = await self._nodes.all()
        turn = next(self._turns) % len(nodes) if nodes else 0
        now = asyncio.get_running_loop().time()
        return sorted(nodes[turn:] + nodes[:turn], key=lambda node: self._avoid.get(node, 0.0) > now)

    async def connection(self, node: Address) -> Connection:
        """The open connection to ``node``. Raises as :meth:`Connection.open`."""
        known = self._open.get(node)
        if known is not None and not known.closed.is_set():
            return known
        # One lock each: a node that does not answer must not keep others waiting.
        async with self._opening.setdefault(node, asyncio.Lock()):
            known = self._open.get(node)
            if known is not None and not known.closed.is_set():
                return known
            if known is not None:
                await known.close()
            if self._closed:
                raise ClosedError("the nsq bus is closed")
            connection = Connection(node, self._options, self._tls)
            try:
                await connection.open()
            except UnreachableError:
                self._give_up_on(node)
                raise
            self._open[node] = connection
            return connection

    def _give_up_on(self, node: Address) -> None:
        """For a while."""
        self._avoid[node] = asyncio.get_running_loop().time() + _AVOID
        self._nodes.doubt()

    async def any(self) -> str:
        """Connect to one, and say which. Raises as :meth:`publish`."""
        last: BusError = UnreachableError("nsqlookupd knows no nsqd; check that they run with --lookupd-tcp-address")
        tried = set[Address]()
        while nodes := await self._untried(tried):
            for node in nodes:
                tried.add(node)
                try:
                    return (await self.connection(node)).where
                except BusError as error:
                    if refused(error):
                        raise
                    last = error
        raise last

    async def close(self) -> None:
        """Let go of every connection."""
        self._closed = True
        for node, lock in list(self._opening.items()):
            async with lock:
                if (connection := self._open.pop(node, None)) is not None:
                    await connection.close()
        await self._nodes.close()


class NsqProducer(Producer):
    """Checks everything, then publishes in batches per topic."""

    def __init__(self, publisher: Publisher, options: NsqOptions, forget: Callable[[NsqProducer], None]) -> None:
        self._publisher = publisher
        self._options = options
        self._forget = forget
        self._closed = False
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def publish_many(self, messages: Sequence[Message]) -> None:
        if self._closed:
            raise ClosedError("this producer is closed")
        if not messages:
            return
        commands = self._commands(messages)
        self._busy += 1
        self._quiet.clear()
        try:
            await self._publisher.publish(commands)
        finally:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()

    def _commands(self, messages: Sequence[Message]) -> list[_Command]:
        """Check all; MPUB for what has the same topic, DPUB for each that is delayed."""
        commands: list[_Command] = []
        topics: dict[str, list[bytes]] = {}
        topic, bodies, most = "", list[bytes](), self._options.max_size
        for message in messages:
            name, body, _, delay, _ = message
            if name != topic:
                topic = check_topic(name)
                bodies = topics.setdefault(topic, [])
            if not 0 < len(body) <= most or delay > self._options.max_delay:
                raise self._refusal(message)
            if delay > 0:
                commands.append(_Command(topic, [body], delay))
            else:
                bodies.append(body)
        for topic, bodies in topics.items():
            commands += [_Command(topic, batch) for batch in _batches(bodies)]
        return commands

    def _refusal(self, message: Message) -> BusError:
        topic, size, options = message.topic, len(message.body), self._options
        if size > options.max_size:
            return TooLargeError(
                f"topic {topic}: {size} bytes are over max_size={options.max_size}; raise it with --max-msg-size of "
                "nsqd, or publish a reference to larger data",
                topic=topic,
                size=size,
                limit=options.max_size,
            )
        if not size:
            return UnsupportedError(f"topic {topic}: nsqd takes no empty message", topic=topic)
        return UnsupportedError(
            f"topic {topic}: a delay of {format_duration(message.delay)} is over "
            f"max_delay={format_duration(options.max_delay)}; raise it with --max-req-timeout of nsqd",
            topic=topic,
        )

    async def close(self) -> None:
        self._closed = True
        self._forget(self)
        await self._quiet.wait()


async def _outcomes(answers: list[asyncio.Future[bytes]]) -> list[bytes | BaseException]:
    """What came of each."""
    if len(answers) > 1:
        return await asyncio.gather(*answers, return_exceptions=True)
    try:
        return [await answers[0]]  # a turn of the loop earlier
    except BusError as error:
        return [error]


def _batches(bodies: list[bytes]) -> Iterator[list[bytes]]:
    """In order, each small enough for one MPUB."""
    for start in range(0, len(bodies), _MOST):
        batch = bodies[start : start + _MOST]
        if sum(map(len, batch)) <= _MOST_BYTES:
            yield batch
            continue
        left, size = batch, 0
        batch = []
        for body in left:
            if batch and size + len(body) > _MOST_BYTES:
                yield batch
                batch, size = [], 0
            batch.append(body)
            size += len(body)
        yield batch
