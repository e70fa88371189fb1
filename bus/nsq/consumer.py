"""Receiving and settling."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from nsq.util import distribute

from bus.contract import Consumer, Delivery
from bus.errors import BusError, LeaseLostError
from bus.nsq import protocol
from bus.nsq.links import Held, Link, Links
from bus.nsq.nodes import Nodes
from bus.nsq.options import NsqOptions
from bus.nsq.protocol import Message
from bus.units import format_duration

__all__ = ["NsqConsumer"]

_log = logging.getLogger("taskbus.bus")
#: Seconds after which readiness moves on where there are more nsqds than messages asked for.
_ROTATE = 0.25
#: As a part of the lease and in seconds: how near its end nsqd is asked whether a settlement held.
_NEAR, _NEAR_MOST = 0.25, 1.0


class NsqConsumer(Consumer):
    """A channel of a topic on every nsqd. nsqd is told to be ready to send only while ``receive`` waits."""

    #: Ids are made of the time in nanoseconds / 2**20 and a sequence, so they never begin anew with the store.
    epoch = "nsq"

    def __init__(
        self,
        topic: str,
        group: str | None,
        channel: str,
        nodes: Nodes,
        options: NsqOptions,
        tls: ssl.SSLContext | None,
        forget: Callable[[NsqConsumer], None],
    ) -> None:
        self.topic = topic
        self.group = group
        self.lease = options.lease
        self._lease = options.lease
        self._near = min(options.lease * _NEAR, _NEAR_MOST)
        self._options = options
        self._forget = forget
        self._links = Links(topic, channel, nodes, options, tls, self._arrived, self._changed)
        self._buffer: deque[Held] = deque()
        self._tidy: asyncio.TimerHandle | None = None
        self._wanted = 0
        self._turn = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._closing = asyncio.Lock()

    async def join(self) -> None:
        """Subscribe. Raises UnreachableError, UnauthorisedError, BusURLError."""
        try:
            await self._links.start()
        except BaseException:
            await self.close()
            raise

    @property
    def ended(self) -> bool:
        return self._closed

    @property
    def trouble(self) -> str:
        """What is wrong; empty if messages can come."""
        return "" if self._links.live else str(self._links.trouble or "no nsqd is connected")

    @property
    def away(self) -> list[str]:
        """The nsqds from which nothing can come now."""
        return self._links.away

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        try:
            while not self._closed:
                if batch := self._take(limit):
                    return batch
                left = None if end is None else end - loop.time()
                if left is not None and left <= 0:
                    return []
                self._wanted = limit
                self._allot()
                for link in self._links.live:
                    link.connection.flush()
                self._wake.clear()
                pause = _ROTATE if limit < len(self._links.live) else self._lease
                hurried = [link for link in self._links.live if link.pace.quota > 1]
                for link in hurried:
                    pause = min(pause, link.pace.patience)
                try:
                    async with asyncio.timeout(pause if left is None else min(left, pause)):
                        await self._wake.wait()
                except TimeoutError:
                    for link in hurried:
                        link.pace.quiet()
                self._turn += 1
            return []
        finally:
            self._wanted = 0
            self._allot()
            self._keep_for_later()

    def _take(self, limit: int) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        batch: list[Delivery] = []
        while self._buffer and len(batch) < limit:
            held = self._buffer.popleft()
            if held.state == "held" and held.deadline > now:
                batch.append(held)
        return batch

    def _arrived(self, link: Link, messages: list[Message]) -> None:
        self._buffer.extend(link.add(messages, asyncio.get_running_loop().time(), self._lease))
        self._wake.set()
        if not self._wanted:
            self._keep_for_later()

    def _keep_for_later(self) -> None:
        """What came too late for its ``receive`` waits for the next one, but not so long that it runs out."""
        if self._buffer and self._tidy is None and not self._closed:
            self._tidy = asyncio.get_running_loop().call_later(self._lease / 2, self._hand_back)

    def _hand_back(self) -> None:
        self._tidy = None
        if self._wanted or self._closed:
            return
        for held in self._buffer:
            if held.state == "held":
                held.state = "settled"
                held.link.held.pop(held.name, None)
                held.link.connection.send(protocol.requeue(held.name))
        self._buffer.clear()

    def _changed(self) -> None:
        if self._wanted:
            self._allot()

    def _allot(self) -> None:
        """Divide what is wanted among the nsqds."""
        links = self._links.live
        now = asyncio.get_running_loop().time()
        if not self._wanted:
            for link in links:
                link.permit(0, now)
            return
        start = self._turn % len(links) if links else 0
        # Those that have to wait are told first, so that at no time more than wanted are on their way.
        shares = sorted(distribute(self._wanted, links[start:] + links[:start]), key=lambda share: int(share[0]))
        for count, link in shares:
            link.permit(count, now)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._settle(deliveries, protocol.finish)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        delay = min(max(delay, 0.0), self._options.max_delay)
        await self._settle(deliveries, lambda id: protocol.requeue(id, delay))

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await self.nack(deliveries, delay=delay)

    async def _settle(self, deliveries: Sequence[Delivery], command: Callable[[bytes], bytes]) -> None:
        mine = cast("Sequence[Held]", deliveries)
        near = asyncio.get_running_loop().time() + self._near
        unsure: dict[Link, list[bytes]] = {}
        used: dict[Link, list[bytes]] = {}
        last: Link | None = None
        names: list[bytes] = []
        for held in mine:
            if held.state != "held":
                continue
            held.state = "settled"
            link = held.link
            if link is not last:
                last = link
                names = used.setdefault(link, [])
            name = held.name
            link.held.pop(name, None)
            names.append(name)
            if held.deadline < near:
                link.settling[name] = held
                unsure.setdefault(link, []).append(name)
        if self._wanted:
            for link in used:
                if not link.held:
                    link.pace.rested()
            # Before they are settled: each settled one makes room at nsqd for one more than was asked for.
            self._allot()
        for link, names in used.items():
            link.connection.send(b"".join(map(command, names)))
        await asyncio.gather(*(self._make_sure(link, names) for link, names in unsure.items()))
        for link in used.keys() - unsure:
            await link.connection.drain()
        self._raise_lost(mine)

    async def _make_sure(self, link: Link, names: Sequence[bytes] = ()) -> None:
        """Wait until nsqd has refused what it refuses; ``names`` are those being settled."""
        try:
            await link.connection.fence()
        except BusError:
            link.lose_all()
        finally:
            for name in names:
                link.settling.pop(name, None)

    def _raise_lost(self, deliveries: Sequence[Held]) -> None:
        lost = list(dict.fromkeys(held for held in deliveries if held.state == "lost"))
        if lost:
            raise LeaseLostError(
                f"topic {self.topic}: the lease of {len(lost)} of {len(deliveries)} messages ended; nsqd gives them "
                "to others: give the URL a longer lease, or nsqd a longer --max-msg-timeout",
                deliveries=lost,
                topic=self.topic,
            )

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        unsure: dict[Link, None] = {}
        mine = cast("Sequence[Held]", deliveries)
        for held in mine:
            if held.state != "held":
                continue
            end = held.arrived + held.link.connection.ceiling
            if now >= end:
                held.state = "lost"
                held.link.held.pop(held.name, None)
                continue
            if end < now + self._lease and not held.warned:
                held.warned = True
                self._warn(held)
            if held.deadline < now + self._near:
                unsure[held.link] = None
            held.deadline = min(now + self._lease, end)
            held.link.connection.send(protocol.touch(held.name))
        await asyncio.gather(*(self._make_sure(link) for link in unsure))
        return [held for held in mine if held.state == "lost"]

    def _warn(self, held: Held) -> None:
        connection = held.link.connection
        _log.warning(
            "topic %s: nsqd %s takes a message back %s after its delivery however often it is extended; for tasks "
            "that take longer raise its --max-msg-timeout",
            self.topic,
            connection.where,
            format_duration(connection.ceiling),
            extra={"event": "lease-ceiling"},
        )

    async def close(self) -> None:
        self._closed = True
        self._wake.set()
        if self._tidy is not None:
            self._tidy.cancel()
        async with self._closing:
            links = await self._links.stop()
            await asyncio.gather(*(self._leave(link) for link in links))
            self._buffer.clear()
            self._forget(self)

    async def _leave(self, link: Link) -> None:
        """Hand everything back, also what is on its way while we say that we want no more."""
        connection = link.connection
        with contextlib.suppress(BusError, TimeoutError):
            async with asyncio.timeout(self._options.timeout):
                await connection.ask(protocol.close())
                self._requeue_all(link)
                await connection.fence()
                self._requeue_all(link)
                await connection.drain()
        for held in link.held.values():
            held.state = "settled"
        await connection.close()

    def _requeue_all(self, link: Link) -> None:
        for held in link.held.values():
            held.state = "settled"
            link.connection.send(protocol.requeue(held.name))
        link.held.clear()
