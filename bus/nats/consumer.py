"""Receiving by pulls, and settling, with a lease that is fenced on our side."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from bus.contract import Consumer, Delivery
from bus.errors import BusError, LeaseLostError, NoSuchTopicError, UnreachableError
from bus.fence import Leased, divide
from bus.nats import wire
from bus.nats.connection import Connection, Request
from bus.nats.names import encode, stream_name
from bus.nats.pull import LONGEST, Pull
from bus.nats.store import Store

__all__ = ["NatsConsumer"]

_log = logging.getLogger("taskbus.bus")
#: The first and the longest pause after a pull that the server refused, in seconds.
_FIRST, _MOST = 0.05, 5.0
#: Characters of the reason for giving up that are told to the server.
_REASON = 200
_KEY = b"\r\nTaskbus-Key: "


class _Handle(Leased):
    __slots__ = ("reply",)

    def __init__(self, reply: bytes, deadline: float) -> None:
        super().__init__(deadline)
        self.reply = reply


class NatsConsumer(Consumer):
    """See :class:`bus.Consumer`. Its pulls ask for what is there, else for one: no more than was asked is taken."""

    def __init__(
        self,
        connection: Connection,
        store: Store,
        topic: str,
        group: str | None,
        gone: Callable[[NatsConsumer], None],
    ) -> None:
        self.topic, self.group = topic, group
        #: What keeps it from receiving though there is a connection; empty if nothing does.
        self.trouble = ""
        self._connection, self._store = connection, store
        self._gone = gone
        self._inbox = connection.new_inbox()
        # The name of a broadcast is not the inbox: that one changes.
        self._name = encode(group) if group is not None else "+cast" + self._inbox.rpartition(b".")[2].decode()
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream_name(store.prefix, topic)}.{self._name}".encode()
        self._subscription = 0
        self._buffer: deque[Delivery] = deque()
        self._held: dict[_Handle, Delivery] = {}
        self._pull = Pull(0, 0, None)
        self._refusals = 0
        self._seen = 0
        self._event = asyncio.Event()
        self._pulse = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False

    async def join(self) -> None:
        """Find or make the consumer on the server."""
        await self._store.ensure(self.topic)
        stream = await self._store.stream(self.topic) or {}
        self.epoch = stream.get("created")
        if self.group is not None:
            self.lease = await self._store.join(self.topic, self.group)
        else:
            self._seen = stream["state"]["last_seq"] if stream else 0
            await self._store.listen(self.topic, self._name, self._seen + 1)
        self._subscription = self._connection.subscribe(self._inbox + b".*", self._arrived)
        self._connection.reconnected.add(self._reconnected)
        self._take_pulse()

    @property
    def ended(self) -> bool:
        return self._closed

    def _take_pulse(self) -> None:
        """What is waiting in the socket now is read before this is called again: it is not older than the last call."""
        if self.lease is not None:
            self._pulse = time.monotonic()
            self._beat = asyncio.get_running_loop().call_later(min(self.lease / 10, 1.0), self._take_pulse)

    def _reconnected(self) -> None:
        self._renew()
        self._event.set()

    def _renew(self) -> None:
        """Nothing more is to come of the last pull: what it might still bring goes where nobody listens."""
        self._connection.unsubscribe(self._subscription)
        self._inbox = self._connection.new_inbox()
        self._subscription = self._connection.subscribe(self._inbox + b".*", self._arrived)
        self._pull.wanted = 0

    def _arrived(self, subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
        pull = self._pull
        if not reply:
            if subject.rpartition(b".")[2] == b"%d" % pull.number:
                pull.told(wire.status(head), head)
                if not pull.refusal:
                    self._refusals, self.trouble = 0, ""
                if pull.over:
                    self._event.set()
            return
        fields = reply.split(b".")
        if len(fields) > 9:  # since 2.8 servers may name domain and account too
            del fields[2:4]
        lease = self.lease
        # The server's clock began when it sent this: after the pull was made, and after the pulse if it waited.
        began = pull.made if pull.seconds is None else max(pull.made, self._pulse)
        handle = _Handle(reply, began + lease if lease is not None else float("inf"))
        key = None
        if (at := head.find(_KEY)) >= 0:
            key = unquote(head[at + len(_KEY) :].partition(b"\r\n")[0].decode())
        self._seen = int(fields[5])
        self._buffer.append(Delivery(body, fields[5].decode(), int(fields[4]), key, (), handle))
        pull.wanted -= 1
        if pull.wanted <= 0:
            self._event.set()

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        ends = None if timeout is None else time.monotonic() + timeout
        asked = False
        while not self._closed:
            pull = self._pull
            if not pull.over:
                if pull.ends <= time.monotonic():
                    self._renew()
                elif not await self._wait(pull.ends, ends):
                    return []
                continue
            if taken := self._take(limit):
                self._refusals, self.trouble = 0, ""
                return taken
            left = LONGEST if ends is None else min(LONGEST, ends - time.monotonic())
            if not self._connection.connected or pull.refusal:
                if left <= 0 or not await self._recover(ends):
                    return []
            elif not asked and (limit > 1 or left <= 0):
                self._ask(limit, None)
                asked = True
            elif left > 0:
                # One at most, or what comes in a while would be more than somebody asks for then.
                self._ask(1, left)
                asked = True
            else:
                return []
        return []

    def _ask(self, batch: int, seconds: float | None) -> None:
        self._pull = pull = Pull(self._pull.number + 1, batch, seconds)
        self._connection.send(wire.publish(self._next, pull.body(), self._inbox + b".%d" % pull.number))

    async def _recover(self, ends: float | None) -> bool:
        """Wait for the connection, or a while after a refusal and see that the consumer is there. False at ``ends``."""
        pull = self._pull
        if not self._connection.connected:
            return await self._wait(float("inf"), ends)
        pause = min(_MOST, _FIRST * 2 ** min(self._refusals, 10)) * random.uniform(0.5, 1.0)
        self._refusals += 1
        if not await self._wait(time.monotonic() + pause, ends):
            return False
        if self._closed or not self._connection.connected:
            return True
        try:
            await self._rejoin()
        except BusError as error:
            if str(error) != self.trouble:
                _log.warning("%s; trying again", error, extra={"event": "bus-refused"})
            self.trouble = str(error)
        else:
            if self._refusals > 3:
                # It is there, and refuses us all the same.
                self.trouble = f"receiving from {self.topic}: the server says {pull.refusal}"
            pull.refusal = ""
        return True

    async def _rejoin(self) -> None:
        """See that stream and consumer are there."""
        self._store.forget(self.topic)
        if self.group is not None:
            if await self._store.group(self.topic, self.group) is None:
                _log.warning(
                    "%s: the consumer of group %s is gone from the server, making it again",
                    self.topic,
                    self.group,
                    extra={"event": "consumer-gone"},
                )
            self.lease = await self._store.join(self.topic, self.group)
        elif await self._store.group(self.topic, self._name) is None:
            await self._store.ensure(self.topic)
            stream = await self._store.stream(self.topic) or {}
            if stream.get("created") != self.epoch:
                # Another stream counts from one again.
                self._seen, self.epoch = 0, stream.get("created")
            await self._store.listen(self.topic, self._name, self._seen + 1)

    async def _wait(self, until: float, ends: float | None) -> bool:
        """Wait for something to happen, until ``until`` at the latest. False when ``ends`` came first."""
        deadline = until if ends is None else min(until, ends)
        self._event.clear()
        try:
            async with asyncio.timeout(None if deadline == float("inf") else deadline - time.monotonic()):
                await self._event.wait()
        except TimeoutError:
            return ends is None or ends > deadline
        return True

    def _take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        now = time.monotonic()
        buffer, held = self._buffer, self._held
        while buffer and len(taken) < limit:
            delivery = buffer.popleft()
            if delivery.handle.deadline > now:
                held[delivery.handle] = delivery
                taken.append(delivery)
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._settle(deliveries, b"+ACK")

    async def terminate(self, deliveries: Sequence[Delivery], *, reason: str) -> None:
        # In the server's advisory the reason is read by people; what it holds besides letters might end it.
        await self._settle(deliveries, b"+TERM " + " ".join(reason.split())[:_REASON].encode(errors="replace"))

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await self._settle(deliveries, _nak(delay))

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await self._settle(deliveries, _nak(delay))

    async def _settle(self, deliveries: Sequence[Delivery], payload: bytes) -> None:
        ours, lost = divide(deliveries, self._held)
        if self.group is not None and ours:
            await self._tell([delivery.handle.reply for delivery in ours], payload, "settling messages")
        for delivery in ours:
            delivery.handle.settled = True
            self._held.pop(delivery.handle, None)
        if lost:
            text = f"{self.topic}: the lease on {len(lost)} messages ended before they were settled"
            raise LeaseLostError(text, deliveries=lost, topic=self.topic)

    async def _tell(self, replies: list[bytes], payload: bytes, doing: str) -> None:
        """Tell the consumer on the server the same of several messages, and wait until it has taken it in.

        A consumer without replicas works in the order of arrival, so that its answer to the last speaks for all.
        """
        alone = self._store.replicas == 1
        before = b"".join(wire.publish(reply, payload) for reply in replies[:-1]) if alone else b""
        requests = [Request(reply, payload) for reply in (replies[-1:] if alone else replies)]
        doing = f"{doing} of {self.topic}"
        answers = await self._connection.request(requests, doing, self.topic, before=before)
        if any(answer.status for answer in answers):
            raise UnreachableError(f"{doing}: the consumer is not there now", topic=self.topic)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        ours, lost = divide(deliveries, self._held)
        if self.lease is not None and ours:
            began = time.monotonic()
            await self._tell([delivery.handle.reply for delivery in ours], b"+WPI", "extending leases")
            for delivery in ours:
                delivery.handle.deadline = began + self.lease
        return lost

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._closed = True
        self._event.set()
        self._connection.reconnected.discard(self._reconnected)
        try:
            if self._connection.connected:
                await self._connection.drain(self._subscription)
            self._held.update((delivery.handle, delivery) for delivery in self._buffer)
            self._buffer.clear()
            if self._held and self._connection.connected:
                await self.release(list(self._held.values()))
            if self.group is None and self._connection.connected:
                await self._store.leave(self.topic, self._name)
        except (LeaseLostError, NoSuchTopicError):
            pass
        except BusError as error:
            # What cannot be handed back comes back when its lease ends.
            _log.warning("%s", error, extra={"event": "close-failed"})
        self._connection.unsubscribe(self._subscription)
        if self._beat is not None:
            self._beat.cancel()
        for handle in self._held:
            handle.settled = True
        self._held.clear()
        self._gone(self)


def _nak(delay: float) -> bytes:
    return b'-NAK {"delay": %d}' % int(delay * 1e9) if delay > 0 else b"-NAK"
