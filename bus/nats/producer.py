"""Publishing, confirmed by JetStream and pipelined."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Callable, Sequence
from urllib.parse import quote

from bus.contract import Message, Producer
from bus.errors import BusError, ClosedError, TooLargeError, UnconfirmedError, UnreachableError, UnsupportedError
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
#: The first and the longest pause before sending again what was not taken, in seconds.
_FIRST, _LONGEST = 0.01, 0.5


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
        await self._publish(messages, requests)

    async def _publish(self, messages: Sequence[Message], requests: list[Request]) -> None:
        """Send all, and those again that were not taken for a reason which passes.

        That is when nobody stores the subject: a cluster has not yet told all its nodes of a new stream, or somebody
        deleted it; and when the same id is being stored just now.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._options.timeout, _FIRST
        left = list(range(len(requests)))
        while True:
            answers = await self._connection.request([requests[number] for number in left], "publishing")
            again: list[int] = []
            trouble: BusError | None = None
            for number, answer in zip(left, answers, strict=True):
                if answer.head or b'"error"' in answer.body:
                    topic = messages[number].topic
                    try:
                        self._connection.read(answer, f"publishing to {topic}", topic)
                    except (UnreachableError, UnconfirmedError) as error:
                        again.append(number)
                        trouble = error
            if trouble is None:
                return
            for topic in {messages[number].topic for number in again}:
                self._store.forget(topic)
                if loop.time() < deadline:
                    await self._store.ensure(topic)
            if loop.time() >= deadline:
                raise trouble
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LONGEST, 2 * pause)
            left = again

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
