"""Publishing to the embedded bus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from bus.capabilities import Durability
from bus.contract import Message, Producer
from bus.errors import BadNameError, ClosedError, TooLargeError
from bus.names import check_topic
from bus.registry import Clock
from bus.sql.engine import Engine
from bus.sql.topic import outgoing

__all__ = ["SqlProducer", "Store"]

#: Where messages are kept, and how lastingly. Producers of equal ones can stand in for each other.
Store: TypeAlias = tuple[str, Durability]

#: The most topic names remembered as checked.
_KNOWN = 10_000


class SqlProducer(Producer):
    """Confirms when the transaction is committed and, with ``synchronous=full``, on the disk."""

    def __init__(
        self, engine: Engine, store: Store, clock: Clock, max_size: int, forget: Callable[[SqlProducer], object]
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._max_size = max_size
        self._forget = forget
        self._known: set[str] = set()
        self._closed = False
        self.store = store

    async def publish_many(self, messages: Sequence[Message]) -> None:
        self.check(messages)
        if messages:
            ours = outgoing(messages, self._clock())
            topics = {message.topic for message in ours}
            await self._engine.write(lambda step: step.outgoing.extend(ours), durable=True, topics=topics)

    def check(self, messages: Sequence[Message]) -> None:
        """Raise what keeps one of these from being published."""
        if self._closed:
            raise ClosedError("this producer is closed")
        limit = self._max_size
        for topic, body, key, _, id in messages:
            if topic not in self._known:
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known.add(check_topic(topic))
            if len(body) > limit:
                raise TooLargeError(
                    f"{topic}: a message of {len(body)} bytes is over the limit of {limit}; "
                    "send a reference to the data, or set a larger ?max_size=",
                    topic=topic,
                    size=len(body),
                    limit=limit,
                )
            for text in (key, id):
                if text is not None and not text.isascii():
                    _check_text(text, topic)

    async def close(self) -> None:
        self._closed = True
        self._forget(self)


def _check_text(text: str, topic: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadNameError(f"{topic}: the key or id {text[:80]!r} is not Unicode text", topic=topic) from None
