"""The bus contract: what a worker or a taskmaster may rely on, on every bus.

Everything here is asynchronous and belongs to the event loop it was opened on; nothing here may be called from
another thread. Three rules hold for every adapter, and ``bus.conformance`` checks them:

1. ``publish_many`` returns only when the bus has *confirmed* every message. Whatever it raises, the caller may call
   it again: a duplicate is allowed, a loss is not.
2. A delivery that was received is *in flight* until it is settled by ``ack``, ``nack``, ``release`` or ``finish``.
   If the consumer dies, or its lease ends unextended, the bus delivers it again with ``attempt`` one higher.
3. Reconnecting is the adapter's duty: for ever, with backoff and jitter, visible in ``health``, never a hot loop.
   ``receive`` does not raise because the bus went away; it waits.

Only errors of ``bus.errors`` leave an adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from bus.capabilities import Capabilities
from bus.url import BusURL

__all__ = ["Bus", "Consumer", "Delivery", "Depth", "Health", "Message", "Peeked", "Producer"]


class Message(NamedTuple):
    """One message to publish.

    ``key`` groups messages that must keep their order, where the bus has order by key. ``delay`` (seconds) hides the
    message until then; a bus that cannot raises :class:`UnsupportedError` before sending anything. ``id`` lets a bus
    with ``dedupe`` drop a second publish of the same message.
    """

    topic: str
    body: bytes
    key: str | None = None
    delay: float = 0.0
    id: str | None = None


class Delivery:
    """One message received, to be settled through the consumer that yielded it.

    ``id`` is the bus's own identity of the message: unique within topic and group, and the same at every redelivery.
    ``attempt`` is 1 at the first delivery. ``history`` holds the reasons of earlier nacks, oldest first, on buses that
    keep them. ``handle`` belongs to the adapter.
    """

    __slots__ = ("attempt", "body", "handle", "history", "id", "key")

    def __init__(
        self,
        body: bytes,
        id: str,
        attempt: int = 1,
        key: str | None = None,
        history: tuple[str, ...] = (),
        handle: Any = None,
    ) -> None:
        self.body = body
        self.id = id
        self.attempt = attempt
        self.key = key
        self.history = history
        self.handle = handle

    def __repr__(self) -> str:
        return f"Delivery(id={self.id!r}, attempt={self.attempt}, {len(self.body)} bytes)"


class Depth(NamedTuple):
    """What is pending for one group of a topic. ``in_flight`` counts messages delivered and not settled."""

    ready: int
    delayed: int = 0
    in_flight: int = 0

    @property
    def total(self) -> int:
        """Everything not yet settled."""
        return self.ready + self.delayed + self.in_flight


class Peeked(NamedTuple):
    """One pending message, looked at without receiving it. ``state`` is ``ready``, ``delayed`` or ``in-flight``."""

    id: str
    body: bytes
    state: str = "ready"
    attempt: int = 0


class Health(NamedTuple):
    """Whether the bus works right now, and a sentence for people. Never contains a secret."""

    ok: bool
    detail: str = ""


class _Closing:
    """``async with`` for everything that has ``close``."""

    async def close(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Producer(_Closing, ABC):
    """Publishes messages. May be used by several coroutines at once."""

    @abstractmethod
    async def publish_many(self, messages: Sequence[Message]) -> None:
        """Publish in order and return when every message is confirmed.

        Names and sizes of *all* messages are checked before the first is sent.

        Raises:
            TooLargeError, BadNameError, UnsupportedError: before anything was sent.
            UnreachableError, FullError, UnconfirmedError: some may have been sent; calling again is safe.
            UnauthorisedError, NoSuchTopicError, OutputClosedError, ClosedError.
        """

    async def publish(
        self, topic: str, body: bytes, *, key: str | None = None, delay: float = 0.0, id: str | None = None
    ) -> None:
        """Publish one message and return when it is confirmed. Raises as :meth:`publish_many`."""
        await self.publish_many([Message(topic, body, key, delay, id)])

    @abstractmethod
    async def close(self) -> None:
        """Finish what is being published and let go. Idempotent; later publishes raise :class:`ClosedError`."""


class Consumer(_Closing, ABC):
    """Receives the messages of one topic for one group.

    Every settling method takes a batch, of deliveries this consumer yielded. The first settlement of a delivery wins
    and later ones do nothing. Where the lease was lost meanwhile the others of the batch are settled and
    :class:`LeaseLostError` names the lost ones.
    """

    topic: str
    group: str | None
    #: Seconds a delivery stays ours without ``extend``; ``None`` = until the consumer dies.
    lease: float | None = None
    #: Another text whenever delivery ids may begin anew, as when the store was deleted and made again. ``None`` = ids
    #: must not be remembered from one consumer to the next.
    epoch: str | None = None

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True once ``receive`` can never yield again: closed, or a finite source wholly yielded and settled."""

    @abstractmethod
    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        """Wait for messages; return at least one and at most ``limit``, in order.

        Never takes more than ``limit`` from the bus: what is not asked for stays there for other consumers. Returns an
        empty list when ``timeout`` seconds passed, and at once when :attr:`ended`. At the end of a finite source it
        waits until everything yielded is settled (a nacked message comes back). One coroutine at a time may call it.
        Cancelling it loses nothing: what it had taken is yielded by the next call or handed back by ``close``.
        """

    @abstractmethod
    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these: never deliver them to this group again."""

    @abstractmethod
    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        """Deliver these again, not before ``delay`` seconds, with ``attempt`` one higher and ``reason`` in history."""

    @abstractmethod
    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        """Hand back, not before ``delay`` seconds, what was not begun: the attempt does not count where countable."""

    @abstractmethod
    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Start the lease of these anew, from now. Returns those whose lease was already lost."""

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        """Publish ``messages`` and, only when they are confirmed, acknowledge ``deliveries``.

        A bus with ``atomic_finish`` does both or neither; a delivery whose lease was lost is then not acknowledged and
        :class:`LeaseLostError` is raised before anything is published. ``producer`` may belong to another bus.
        """
        if messages:
            await producer.publish_many(messages)
        await self.ack(deliveries)

    async def terminate(self, deliveries: Sequence[Delivery], *, reason: str) -> None:
        """Give these up, their dead letters being confirmed: as :meth:`ack`, and the bus may say so."""
        await self.ack(deliveries)

    @abstractmethod
    async def close(self) -> None:
        """Release every unsettled delivery to the bus and let go.

        Idempotent; may be called at any moment, also while ``receive`` waits, which then returns an empty list.
        """


class Bus(_Closing, ABC):
    """A connection to one message bus. Made by :func:`bus.connect`; opened by ``async with`` or :meth:`open`."""

    #: URL schemes this adapter serves.
    schemes: ClassVar[tuple[str, ...]]
    #: What it can do. Options of the URL may change an instance's value.
    capabilities: Capabilities

    def __init__(self, url: BusURL) -> None:
        self.url = url

    async def open(self) -> None:
        """Connect. Raises UnreachableError, UnauthorisedError or BusURLError. Idempotent."""

    @abstractmethod
    async def producer(self) -> Producer:
        """A producer of its own life time; close it when done."""

    @abstractmethod
    async def consumer(self, topic: str, group: str | None) -> Consumer:
        """A consumer for ``group`` of ``topic``. ``None`` is a broadcast: everything published from now on.

        Raises BadNameError, UnsupportedError, NoSuchTopicError.
        """

    async def depth(self, topic: str, group: str) -> Depth:
        """What is pending for ``group``; for a group never seen, what it would receive."""
        raise self._unsupported("depth")

    async def peek(self, topic: str, group: str | None = None, limit: int = 10) -> list[Peeked]:
        """The oldest pending messages of ``group``, or the oldest stored of the topic, without receiving them."""
        raise self._unsupported("peek")

    async def topics(self) -> list[str]:
        """Names of the topics that exist, sorted."""
        raise self._unsupported("topics")

    async def groups(self, topic: str) -> list[str]:
        """Names of the groups that exist on ``topic``, sorted."""
        raise self._unsupported("groups")

    async def health(self) -> Health:
        """Whether the bus can be used right now. Never raises."""
        return Health(True)

    @abstractmethod
    async def close(self) -> None:
        """Close every producer and consumer made here, then the connection. Idempotent."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    def _unsupported(self, what: str) -> Exception:
        from bus.errors import UnsupportedError

        return UnsupportedError(f"the {self.url.scheme} bus has no {what} (see `taskbus buses`)")
