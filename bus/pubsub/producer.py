"""Publishing, confirmed by Pub/Sub and pipelined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bus.contract import Message, Producer
from bus.errors import ClosedError, NoSuchTopicError, TooLargeError, UnsupportedError
from bus.names import check_topic
from bus.pubsub import wire
from bus.pubsub.connection import Connection
from bus.pubsub.names import Names
from bus.pubsub.options import PubsubOptions
from bus.pubsub.store import Store

__all__ = ["KEY", "Publisher", "PubsubProducer", "chains"]

#: The attribute of a key where it keeps no order.
KEY = "taskbus-key"
#: The most messages of one request, which Pub/Sub limits, and bytes, by which several requests share the work.
_MOST, _MOST_BYTES = 1000, 1024**2
#: Requests under way at once: who publishes faster than Pub/Sub confirms has to wait.
_REQUESTS = 8
#: Longest key, in bytes, as ordering key and as attribute: https://cloud.google.com/pubsub/quotas#resource_limits
_LONGEST_KEY = 1024
_Batch = list[Message]


class Publisher:
    """Sends batches, of all producers of a bus."""

    def __init__(self, connection: Connection, store: Store, names: Names, options: PubsubOptions) -> None:
        self._connection = connection
        self._store = store
        self._names = names
        self._ordering = options.ordering
        self._room = asyncio.Semaphore(_REQUESTS)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when every one is confirmed. Raises as :meth:`Connection.call` and :meth:`Store.ensure`."""
        for topic in {message.topic for message in messages}:
            await self._store.ensure(topic)
        found = chains(messages, self._ordering)
        if len(found) == 1:
            await self._send_chain(found[0])
            return
        ended = await asyncio.gather(*map(self._send_chain, found), return_exceptions=True)
        for result in ended:
            if isinstance(result, BaseException):
                raise result

    async def _send_chain(self, chain: list[_Batch]) -> None:
        for batch in chain:
            async with self._room:
                await self._send(batch)

    async def _send(self, batch: _Batch) -> None:
        topic = batch[0].topic
        packed = [self._packed(message) for message in batch]
        request = wire.PUBLISH.request(topic=self._names.topic(topic), messages=packed)
        doing = f"publishing to {topic}"
        try:
            await self._connection.call(wire.PUBLISH, request, doing, topic=topic)
        except NoSuchTopicError:
            # Somebody deleted it since, or an emulator was started anew.
            self._store.forget(topic)
            await self._store.ensure(topic)
            await self._connection.call(wire.PUBLISH, request, doing, topic=topic)

    def _packed(self, message: Message) -> object:
        if message.key is None:
            return wire.PubsubMessage(data=message.body)
        if self._ordering and message.key:
            return wire.PubsubMessage(data=message.body, ordering_key=message.key)
        return wire.PubsubMessage(data=message.body, attributes={KEY: message.key})


class PubsubProducer(Producer):
    """Checks everything, then publishes in batches per topic, and per key where that keeps order."""

    def __init__(self, publisher: Publisher, options: PubsubOptions, forget: Callable[[PubsubProducer], None]) -> None:
        self._publisher = publisher
        self._limit = options.max_size
        self._forget = forget
        self._closed = False
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def publish_many(self, messages: Sequence[Message]) -> None:
        if self._closed:
            raise ClosedError("this producer is closed")
        for message in messages:
            self._check(message)
        if not messages:
            return
        self._busy += 1
        self._quiet.clear()
        try:
            await self._publisher.publish(messages)
        finally:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()

    def _check(self, message: Message) -> None:
        topic, body, key, delay, _ = message
        check_topic(topic)
        if len(body) > self._limit:
            text = (
                f"topic {topic}: {len(body)} bytes are over max_size={self._limit}; publish a reference to larger data"
            )
            raise TooLargeError(text, topic=topic, size=len(body), limit=self._limit)
        if delay > 0:
            raise UnsupportedError(f"topic {topic}: the pubsub bus has no delay of a publish", topic=topic)
        if not body:
            raise UnsupportedError(f"topic {topic}: Pub/Sub takes no empty message", topic=topic)
        if key is not None:
            try:
                fits = len(key.encode()) <= _LONGEST_KEY
            except UnicodeEncodeError:
                fits = False
            if not fits:
                raise UnsupportedError(
                    f"topic {topic}: a key of Pub/Sub is text of up to {_LONGEST_KEY} bytes", topic=topic
                )

    async def close(self) -> None:
        self._closed = True
        self._forget(self)
        await self._quiet.wait()


def chains(messages: Sequence[Message], ordering: bool) -> list[list[_Batch]]:
    """Requests, each of one topic; those with one ordering key follow one another, all others go side by side."""
    places: dict[tuple[str, str], list[_Batch]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for message in messages:
        place = (message.topic, (message.key or "") if ordering else "")
        size = len(message.body) + 64
        chain = places.setdefault(place, [[]])
        total = sizes.get(place, 0) + size
        if chain[-1] and (len(chain[-1]) == _MOST or total > _MOST_BYTES):
            chain.append([])
            total = size
        chain[-1].append(message)
        sizes[place] = total
    found: list[list[_Batch]] = []
    for (_, key), chain in places.items():
        if key:
            found.append(chain)
        else:
            found += ([batch] for batch in chain)
    return found
