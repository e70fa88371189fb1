"""Publishing, confirmed by JetStream and pipelined."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from urllib.parse import quote

from bus.contract import Message, Producer
from bus.errors import ClosedError, TooLargeError, UnreachableError, UnsupportedError
from bus.names import check_topic
from bus.nats.connection import Connection, Request
from bus.nats.names import subject_name
from bus.nats.options import NatsOptions
from bus.nats.store import Store

__all__ = ["NatsProducer"]

_PLAIN = re.compile(r"[\x21-\x7e]{1,128}")


class NatsProducer(Producer):
    """See :class:`bus.Producer`."""

    def __init__(
        self, connection: Connection, store: Store, options: NatsOptions, gone: Callable[[NatsProducer], None]
    ) -> None:
        self._connection = connection
        self._store = store
        self._options = options
        self._gone = gone
        self._closed = False

    async def publish_many(self, messages: Sequence[Message]) -> None:
        if self._closed:
            raise ClosedError("this producer is closed")
        limit = self._options.max_size
        for message in messages:
            check_topic(message.topic)
            if message.delay > 0:
                raise UnsupportedError("the nats bus has no delay of a publish", topic=message.topic)
            if len(message.body) > limit:
                text = f"{message.topic}: {len(message.body)} bytes are over the limit of {limit} (option max_size)"
                raise TooLargeError(text, topic=message.topic, size=len(message.body), limit=limit)
            if message.key is not None and len(quote(message.key)) > 512:
                raise UnsupportedError("the nats bus takes keys of up to 512 encoded characters", topic=message.topic)
        topics = dict.fromkeys(message.topic for message in messages)
        for topic in topics:
            await self._store.ensure(topic)
        try:
            await self._send(messages)
        except UnreachableError:
            # Perhaps somebody deleted a stream since: the next try makes it again.
            for topic in topics:
                self._store.forget(topic)
            raise

    async def _send(self, messages: Sequence[Message]) -> None:
        requests = [
            Request(subject_name(self._options.prefix, message.topic), message.body, _headers(message))
            for message in messages
        ]
        answers = await self._connection.request(requests, "publishing")
        for answer, message in zip(answers, messages, strict=True):
            self._connection.read(answer, f"publishing to {message.topic}", message.topic)

    async def close(self) -> None:
        self._closed = True
        self._gone(self)


def _headers(message: Message) -> dict[str, str] | None:
    headers = {}
    if message.id is not None:
        plain = _PLAIN.fullmatch(message.id)
        headers["Nats-Msg-Id"] = (
            message.id if plain else hashlib.blake2b(message.id.encode("utf-8", "surrogatepass")).hexdigest()
        )
    if message.key is not None:
        headers["Taskbus-Key"] = quote(message.key)
    return headers or None
