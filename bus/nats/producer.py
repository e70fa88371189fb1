"""Publishing, confirmed by JetStream and pipelined."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from urllib.parse import quote

from bus.contract import Message, Producer
from bus.errors import ClosedError, TooLargeError, UnreachableError, UnsupportedError
from bus.names import check_topic
from bus.nats import wire
from bus.nats.connection import Connection, Request
from bus.nats.names import subject_name
from bus.nats.options import NatsOptions
from bus.nats.store import Store

__all__ = ["NatsProducer"]

#: Message ids that are sent as they are.
_PLAIN = re.compile(r"[\x21-\x7e]{1,128}")
_LONGEST_KEY = 512


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
        subjects: dict[str, bytes] = {}
        requests = []
        for topic, body, key, delay, id in messages:
            subject = subjects.get(topic)
            if subject is None:
                subject = subjects[check_topic(topic)] = subject_name(self._options.prefix, topic).encode()
            if delay > 0:
                raise UnsupportedError("the nats bus has no delay of a publish", topic=topic)
            if len(body) > self._options.max_size:
                limit = self._options.max_size
                text = f"{topic}: {len(body)} bytes are over the limit of {limit} (option max_size)"
                raise TooLargeError(text, topic=topic, size=len(body), limit=limit)
            requests.append(Request(subject, body, _head(topic, id, key)))
        for topic in subjects:
            await self._store.ensure(topic)
        try:
            answers = await self._connection.request(requests, "publishing")
            for answer, message in zip(answers, messages, strict=True):
                if b'"error"' in answer.body or answer.head:
                    self._connection.read(answer, f"publishing to {message.topic}", message.topic)
        except UnreachableError:
            # Perhaps somebody deleted a stream since: the next try makes it again.
            for topic in subjects:
                self._store.forget(topic)
            raise

    async def close(self) -> None:
        self._closed = True
        self._gone(self)


def _head(topic: str, id: str | None, key: str | None) -> bytes:
    if key is None:
        if id is None:
            return b""
        if _PLAIN.fullmatch(id):
            return b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % id.encode()
    fields = {}
    if id is not None:
        plain = _PLAIN.fullmatch(id)
        fields["Nats-Msg-Id"] = id if plain else hashlib.blake2b(id.encode("utf-8", "surrogatepass")).hexdigest()
    if key is not None:
        fields["Taskbus-Key"] = quote(key)
        if len(fields["Taskbus-Key"]) > _LONGEST_KEY:
            raise UnsupportedError(f"the nats bus takes keys of up to {_LONGEST_KEY} encoded characters", topic=topic)
    return wire.header(fields)
