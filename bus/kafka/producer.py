"""Publishing, confirmed by every replica in sync and pipelined."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bus.contract import Message, Producer
from bus.errors import (
    ClosedError,
    NoSuchTopicError,
    TooLargeError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
)
from bus.kafka.names import check_user_topic
from bus.kafka.options import KafkaOptions
from bus.kafka.records import Plain, Record
from bus.kafka.sender import Sender
from bus.kafka.store import Store

__all__ = ["KafkaProducer"]

#: Bytes of the largest key: it travels beside the body.
_KEY = 4096


class KafkaProducer(Producer):
    """See :class:`bus.Producer`."""

    def __init__(
        self, sender: Sender, store: Store, options: KafkaOptions, gone: Callable[[KafkaProducer], None]
    ) -> None:
        self._sender = sender
        self._store = store
        self._options = options
        self._gone = gone
        self._closed = False

    async def publish_many(self, messages: Sequence[Message]) -> None:
        if self._closed:
            raise ClosedError("this producer is closed")
        limit = self._options.max_size
        #: By topic. Messages with a key are records; the others, nearly all, go over in batches.
        topics: dict[str, list[bytes]] = {}
        records: list[Record] = []
        for topic, body, key, delay, _ in messages:
            batch = topics.get(topic)
            if batch is None:
                batch = topics[check_user_topic(topic)] = []
            if delay > 0:
                raise UnsupportedError("the kafka bus has no delay of a publish", topic=topic)
            if len(body) > limit:
                text = f"{topic}: {len(body)} bytes are over the limit of {limit} (option max_size)"
                raise TooLargeError(text, topic=topic, size=len(body), limit=limit)
            if key is None:
                batch.append(body)
                continue
            encoded = key.encode("utf-8", "surrogatepass")
            if len(encoded) > _KEY:
                raise UnsupportedError(f"the kafka bus takes keys of up to {_KEY} bytes", topic=topic)
            records.append(Record(topic, body, encoded))
        plain = [Plain(topic, await self._store.ensure(topic), bodies) for topic, bodies in topics.items()]
        try:
            await self._sender.send(records, "publishing", plain)
        except (NoSuchTopicError, UnconfirmedError) as error:
            # Perhaps somebody deleted a topic since: it is looked for, and if we may is made again.
            for topic in topics:
                self._store.forget(topic)
            if isinstance(error, UnconfirmedError):
                raise
            for topic in topics:
                await self._store.ensure(topic)
                await self._sender.refresh(topic)
            raise UnreachableError(f"{error}; it is there again, try again", topic=error.topic) from error

    async def close(self) -> None:
        self._closed = True
        self._gone(self)
