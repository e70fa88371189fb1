"""Receiving by pulls, and settling, with a lease that is fenced on our side."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus.contract import Consumer, Delivery
from bus.errors import BusError, LeaseLostError, NoSuchTopicError
from bus.nats.connection import Connection, Request
from bus.nats.names import encode
from bus.nats.store import Store
from bus.nats.trouble import mapped

__all__ = ["NatsConsumer"]

#: Longest life of one pull, seconds: so long may a pull stay lost that the server forgot without telling.
_PULL = 5.0
#: Pause after a pull that the server refused.
_PAUSE = 0.25


class _Handle:
    __slots__ = ("deadline", "lost", "reply", "settled")

    def __init__(self, reply: str, deadline: float) -> None:
        self.reply = reply
        self.deadline = deadline
        self.settled = False
        self.lost = False


class NatsConsumer(Consumer):
    """See :class:`bus.Consumer`. Its pulls ask for what is there, else for one: no more than was asked is taken."""

    def __init__(
        self,
        connection: Connection,
        store: Store,
        stream: str,
        topic: str,
        group: str | None,
        gone: Callable[[NatsConsumer], None],
    ) -> None:
        self.topic, self.group = topic, group
        self._connection, self._store, self._stream = connection, store, stream
        self._gone = gone
        self._inbox = connection.client.new_inbox()
        self._name = encode(group) if group is not None else "+cast" + self._inbox.rpartition(".")[2]
        self._seen = 0
        self._subscription: Subscription | None = None
        self._buffer: deque[Delivery] = deque()
        self._held: dict[_Handle, Delivery] = {}
        self._pull = 0
        self._wanted = 0
        self._pull_ends = 0.0
        self._refused: str | None = None
        self._event = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._closed = False

    async def join(self) -> None:
        """Find or make the consumer on the server."""
        if self.group is not None:
            self.lease = await self._store.join(self.topic, self.group)
            info = await self._store.stream(self.topic)
            self.epoch = info["created"] if info else None
        else:
            await self._store.ensure(self.topic)
            await self._store.listen(self.topic, self._name, None)
        try:
            self._subscription = await self._connection.client.subscribe(f"{self._inbox}.*", cb=self._arrived)
        except Exception as error:  # the client library's errors, all of which are mapped
            raise mapped(error, f"receiving from {self.topic}", self.topic) from error
        self._connection.reconnected.add(self._reconnected)

    @property
    def ended(self) -> bool:
        return self._closed

    def _reconnected(self) -> None:
        self._wanted = 0
        self._event.set()

    async def _arrived(self, message: Msg) -> None:
        if message.subject.startswith(self._inbox):
            status = (message.headers or {}).get("Status", "")
            if status != "100" and message.subject.rpartition(".")[2] == str(self._pull):
                self._wanted = 0
                self._refused = None if status in ("404", "408") else status
                self._event.set()
            return
        fields = message.reply.split(".")
        if len(fields) > 9:
            del fields[2:4]
        key = (message.headers or {}).get("Taskbus-Key")
        # The server's clock began at the delivery, a little before this moment.
        deadline = time.monotonic() + self.lease - min(self.lease / 10, 1.0) if self.lease else float("inf")
        handle = _Handle(message.reply, deadline)
        delivery = Delivery(message.data, fields[5], int(fields[4]), None if key is None else unquote(key), (), handle)
        self._seen = max(self._seen, int(fields[5]))
        self._buffer.append(delivery)
        self._wanted -= 1
        self._event.set()

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        ends = None if timeout is None else time.monotonic() + timeout
        at_once = True
        while not self._closed:
            if self._wanted <= 0 and (taken := self._take(limit)):
                return taken
            now = time.monotonic()
            if self._wanted > 0 and now < self._pull_ends:
                await self._wait(self._pull_ends - now)
                continue
            if (taken := self._take(limit)) or self._closed:
                return taken
            if ends is not None and now >= ends and not at_once:
                return []
            if self._refused is not None or not self._connection.connected:
                await self._recover(ends)
                at_once = ends is None or time.monotonic() < ends
                continue
            left = _PULL if ends is None else min(_PULL, max(0.0, ends - now))
            await self._ask(limit if at_once else 1, None if at_once else left)
            at_once = False
        return []

    async def _ask(self, batch: int, seconds: float | None) -> None:
        self._pull += 1
        self._wanted = batch
        body: dict[str, object] = {"batch": batch}
        if seconds is None:
            body["no_wait"] = True
        else:
            body["expires"] = max(int(seconds * 1e9), 1_000_000)
        self._pull_ends = time.monotonic() + (seconds or 0.0) + 1.0
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        try:
            reply = f"{self._inbox}.{self._pull}"
            await self._connection.client.publish(subject, json.dumps(body).encode(), reply=reply)
        except Exception as error:  # whatever the client library raises means: ask again later
            self._connection.trouble = error
            self._wanted, self._refused = 0, "unsent"

    async def _recover(self, ends: float | None) -> None:
        """Wait a little after trouble; see that the consumer is there."""
        left = _PAUSE if ends is None else min(_PAUSE, max(0.0, ends - time.monotonic()))
        await self._wait(left)
        refused, self._refused = self._refused, None
        if refused is None or not self._connection.connected or self._closed:
            return
        try:
            if self.group is not None:
                self._store.forget(self.topic)
                await self._store.join(self.topic, self.group)
            elif await self._store.group(self.topic, self._name) is None:
                self._store.forget(self.topic)
                await self._store.ensure(self.topic)
                await self._store.listen(self.topic, self._name, self._seen + 1 if self._seen else None)
        except BusError as error:
            self._connection.trouble = error
            self._refused = refused

    async def _wait(self, seconds: float) -> None:
        self._event.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return

    def _take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        now = time.monotonic()
        while self._buffer and len(taken) < limit:
            delivery = self._buffer.popleft()
            if delivery.handle.deadline > now:
                self._held[delivery.handle] = delivery
                taken.append(delivery)
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._settle(deliveries, b"+ACK")

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await self._settle(deliveries, _nak(delay))

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await self._settle(deliveries, _nak(delay))

    async def _settle(self, deliveries: Sequence[Delivery], payload: bytes) -> None:
        ours, lost = self._divide(deliveries)
        if self.group is not None and ours:
            requests = [Request(delivery.handle.reply, payload) for delivery in ours]
            await self._connection.request(requests, f"settling messages of {self.topic}", self.topic)
        for delivery in ours:
            delivery.handle.settled = True
            self._held.pop(delivery.handle, None)
        if lost:
            text = f"{self.topic}: the lease on {len(lost)} messages ended before they were settled"
            raise LeaseLostError(text, deliveries=lost, topic=self.topic)

    def _divide(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        ours: list[Delivery] = []
        lost: list[Delivery] = []
        now = time.monotonic()
        for delivery in dict.fromkeys(deliveries):
            handle = delivery.handle
            if handle.settled:
                continue
            if handle.lost or handle.deadline <= now:
                handle.lost = True
                self._held.pop(handle, None)
                lost.append(delivery)
            else:
                ours.append(delivery)
        return ours, lost

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        ours, lost = self._divide(deliveries)
        if self.lease is not None and ours:
            began = time.monotonic()
            requests = [Request(delivery.handle.reply, b"+WPI") for delivery in ours]
            await self._connection.request(requests, f"extending leases of {self.topic}", self.topic)
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
            if self._subscription is not None and self._connection.connected:
                async with asyncio.timeout(self._connection.timeout):
                    await self._subscription.drain()  # type: ignore[no-untyped-call]
            self._held.update((delivery.handle, delivery) for delivery in self._buffer)
            self._buffer.clear()
            if self._held and self._connection.connected:
                await self.release(list(self._held.values()))
            if self.group is None and self._connection.connected:
                await self._store.leave(self.topic, self._name)
        except (LeaseLostError, NoSuchTopicError):
            pass
        except Exception as error:  # what cannot be handed back comes back when its lease ends
            self._connection.trouble = error
        for handle in self._held:
            handle.settled = True
        self._held.clear()
        self._gone(self)


def _nak(delay: float) -> bytes:
    return b'-NAK {"delay": %d}' % int(delay * 1e9) if delay > 0 else b"-NAK"
