"""What is on the servers: topics, their ends, and how far groups have come."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewTopic

from bus.contract import Depth
from bus.errors import BusError, BusURLError, ClosedError, NoSuchTopicError, UnreachableError
from bus.kafka.names import is_user_topic, retry_group, retry_topic
from bus.kafka.options import USUAL, KafkaOptions
from bus.kafka.progress import decode
from bus.kafka.trouble import is_refusal, kafka_error, mapped

__all__ = ["Extent", "Store"]

_SETTLED = 15
K = KafkaError
#: What is answered while a topic is being made or its leader, or a group's, is moving.
_MOVING = frozenset(
    (
        K.NOT_LEADER_FOR_PARTITION,
        K.LEADER_NOT_AVAILABLE,
        K.COORDINATOR_NOT_AVAILABLE,
        K.COORDINATOR_LOAD_IN_PROGRESS,
        K.NOT_COORDINATOR,
    )
)
#: Groups about which a client is kept for further questions.
_ASKERS = 4
#: For so many partitions of a topic its retry topic has one.
_FEWER = 4
#: Seconds for which such an answer is taken to be passing.
_SETTLING = 3.0
#: Seconds for which a list of topics holds for who has just connected: the next takes a twentieth of one.
_JUST = 0.5
#: Seconds after which to look again which partitions topics have.
_FRESH = 60.0
Found = TypeVar("Found")


class Extent(NamedTuple):
    """What a group has before it of a partition: from ``start`` to before ``end``; ``states`` from ``start`` on."""

    topic: str
    partition: int
    start: int
    end: int
    states: bytes = b""


class Store:
    """Asks the servers, each question on a thread of its own pool."""

    def __init__(self, given: dict[str, Any], where: str, options: KafkaOptions) -> None:
        self.where = where
        self._given = given
        self._options = options
        self._admin: AdminClient | None = None
        self._trouble: KafkaError | None = None
        self._threads = ThreadPoolExecutor(4, "kafka-admin")
        self._askers: dict[str, Consumer] = {}
        self._asking = threading.Lock()
        #: When the topics were last listed, and what they were.
        self._listed: tuple[float, dict[str, TopicMetadata]] = -_JUST, {}
        #: Of each topic that is known to be there, the partitions that had a leader.
        self._known: dict[str, tuple[int, ...]] = {}
        self._seen = float("inf")
        self._looking: asyncio.Task[None] | None = None
        self._ensuring = asyncio.Lock()
        self._closed = False

    async def open(self) -> None:
        """Reach a server. Raises UnreachableError, UnauthorisedError, BusURLError."""
        try:
            given: dict[str, Any] = {**self._given, "error_cb": self._on_error}
            self._admin = AdminClient(given)
        except (KafkaException, ValueError) as error:
            text = f"kafka at {self.where}: these options cannot be used: {error}"
            raise BusURLError(text) from error
        await self.check()

    def _on_error(self, error: KafkaError) -> None:
        # "All brokers are down" follows the reason why, and says less.
        if error.code() != K._ALL_BROKERS_DOWN or self._trouble is None:
            self._trouble = error

    async def check(self) -> None:
        """Ask the servers for a sign of life. Raises UnreachableError or UnauthorisedError."""
        self._trouble = None
        await self.run(self._look, f"kafka at {self.where} cannot be used")

    def _look(self) -> None:
        admin = self.client()
        waited = 0.0
        while True:
            try:
                # In small portions: a refused password is told at once, but not by this call.
                self._listed = time.monotonic(), admin.list_topics(timeout=0.25).topics
                return
            except KafkaException as error:
                waited += 0.25
                admin.poll(0)
                trouble = self._trouble
                if trouble is not None and is_refusal(trouble):
                    raise KafkaException(trouble) from error
                if waited >= self._options.timeout:
                    reason = trouble or kafka_error(error)
                    text = reason.str() if reason else str(error)
                    raise UnreachableError(f"kafka at {self.where} does not answer: {text}") from error

    def client(self) -> AdminClient:
        """For further questions, on a thread of :meth:`run`. Raises ClosedError."""
        if self._admin is None or self._closed:
            raise ClosedError("the kafka bus is closed")
        return self._admin

    async def run(self, ask: Callable[[], Found], doing: str, topic: str | None = None) -> Found:
        """Run a blocking question. Only errors of our tree come out."""
        if self._closed:
            raise ClosedError("the kafka bus is closed")
        loop = asyncio.get_running_loop()
        until = loop.time() + _SETTLING
        while True:
            try:
                return await loop.run_in_executor(self._threads, ask)
            except KafkaException as error:
                found = kafka_error(error)
                code = found.code() if found is not None else None
                late = loop.time() > until
                if code == K.UNKNOWN_TOPIC_OR_PART and topic is not None and topic in self._known:
                    if late:
                        # A server that is slow to hear of a topic does not miss it. Should it have been deleted, it is
                        # made again when it is next asked for.
                        self.forget(topic)
                        text = f"kafka at {self.where} does not know the topic {topic} yet"
                        raise UnreachableError(text, topic=topic) from error
                elif code not in _MOVING or late:
                    raise mapped(error, doing, topic) from error
            await asyncio.sleep(0.05)

    def _result(self, future: Future[Found]) -> Found:
        return future.result(self._options.timeout + 5.0)

    def forget(self, topic: str) -> None:
        """Look again before the next use: the topic was not there."""
        self._known.pop(topic, None)
        self._listed = -_JUST, {}

    async def ensure(self, topic: str, group: str | None = None) -> tuple[int, ...]:
        """See that the topic is there, and with ``group`` its retry topic too.

        Returns its partitions that can be written to, as they were a while ago.

        Raises:
            NoSuchTopicError: it is not, and ``create`` is false.
        """
        names = [topic] if group is None else [topic, retry_topic(topic, group)]
        if not self._known.keys() >= set(names):
            async with self._ensuring:
                missing = [name for name in names if name not in self._known]
                if missing:
                    self._known |= await self.run(lambda: self._make(missing), f"making the topic {topic}", topic)
        now = asyncio.get_running_loop().time()
        self._seen = min(self._seen, now)
        if now - self._seen > _FRESH:
            self._seen = now
            self._looking = asyncio.create_task(self._look_again(), name="kafka partitions")
        return self._known[topic]

    async def _look_again(self) -> None:
        """Topics may have got more partitions, and these other leaders."""
        with contextlib.suppress(BusError):  # whoever writes to them will say so
            client, timeout = self.client(), self._options.timeout
            there = await self.run(lambda: client.list_topics(timeout=timeout).topics, "looking at topics")
            self._known |= {name: _writable(there[name]) for name in self._known if name in there}

    def _make(self, names: list[str]) -> dict[str, tuple[int, ...]]:
        """Those that are missing. Returns their partitions that can be written to."""
        client = self.client()
        at, there = self._listed
        if time.monotonic() - at > _JUST:
            there = client.list_topics(timeout=self._options.timeout).topics
        missing = [name for name in names if name not in there]
        found = {name: _writable(there[name]) for name in names if name in there}
        if not missing:
            return found
        if not self._options.create:
            raise NoSuchTopicError(
                f"{missing[0]}: there is no such topic at {self.where}, and create=false: create it",
                topic=missing[0],
            )
        config: dict[str, str] = {}
        if self._options.retention is not None:
            config["retention.ms"] = str(round(self._options.retention * 1000))
        if self._options.largest > USUAL:
            config["max.message.bytes"] = str(self._options.largest + 4096)
        if (self._options.replicas or 1) >= 3:
            config["min.insync.replicas"] = "2"
        made = client.create_topics(
            [NewTopic(name, self._width(name), self._options.replicas or -1, config=config) for name in missing],
            request_timeout=self._options.timeout,
            operation_timeout=self._options.timeout,
        )
        for name, future in made.items():
            found[name] = tuple(range(self._width(name)))
            try:
                self._result(future)
            except KafkaException as error:
                problem = kafka_error(error)
                if problem is None or problem.code() != K.TOPIC_ALREADY_EXISTS:
                    raise
                found[name] = ()  # by somebody else, with who knows how many
        return found

    def _width(self, name: str) -> int:
        """Partitions are divided among the members of a group whichever topic they are of: a member with nothing but
        parts of the retry topic would idle, so that has few."""
        partitions = self._options.partitions
        return partitions if is_user_topic(name) else -(-partitions // _FEWER)

    async def epoch(self, topic: str) -> str:
        """Another text for every topic ever made: its id."""

        def ask() -> str:
            future = self.client().describe_topics(TopicCollection([topic]), request_timeout=self._options.timeout)[
                topic
            ]
            return str(self._result(future).topic_id)

        return await self.run(ask, f"looking at {topic}", topic)

    async def topics(self) -> list[str]:
        """The topics that can be named through this bus, sorted."""
        return sorted(name for name in await self._names() if is_user_topic(name))

    async def groups(self, topic: str) -> list[str]:
        """The groups that have had a consumer of ``topic``, sorted: each has a retry topic."""
        return sorted(group for name in await self._names() if (group := retry_group(name, topic)) is not None)

    async def _names(self) -> list[str]:
        timeout = self._options.timeout
        return await self.run(lambda: list(self.client().list_topics(timeout=timeout).topics), "listing topics")

    async def extents(self, topic: str, group: str | None) -> list[Extent]:
        """What ``group`` has before it, in the topic and its retry topic; without one what is stored of the topic."""
        return await self.run(lambda: self._extents(topic, group), f"looking at {topic}", topic)

    async def ends(self, topic: str) -> list[TopicPartition]:
        """Behind the last message of every partition of a topic that is there.

        A topic that was just made is not known to every server at once, and none of its partitions may be missing.
        Raises UnreachableError if it does not become known.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _SETTLING
        while not (found := await self.extents(topic, None)):
            if loop.time() > until:
                raise UnreachableError(f"kafka at {self.where} does not know the topic {topic} yet", topic=topic)
            await asyncio.sleep(0.05)
        return [TopicPartition(extent.topic, extent.partition, extent.end) for extent in found]

    def _extents(self, topic: str, group: str | None) -> list[Extent]:
        client = self.client()
        timeout = self._options.timeout
        there = client.list_topics(timeout=timeout).topics
        wanted = [topic] if group is None else [topic, retry_topic(topic, group)]
        parts = [TopicPartition(name, number) for name in wanted if name in there for number in there[name].partitions]
        if not parts:
            return []
        committed: dict[tuple[str, int], TopicPartition] = {}
        if group is not None:
            for each in self._asker(group).committed(parts, timeout=timeout):
                committed[each.topic, each.partition] = each
        firsts = client.list_offsets({part: OffsetSpec.earliest() for part in parts}, request_timeout=timeout)  # type: ignore[no-untyped-call]
        lasts = client.list_offsets({part: OffsetSpec.latest() for part in parts}, request_timeout=timeout)  # type: ignore[no-untyped-call]
        extents = []
        for part in parts:
            first, last = self._result(firsts[part]).offset, self._result(lasts[part]).offset
            at = committed.get((part.topic, part.partition))
            states = b""
            if at is not None and at.offset >= 0 and at.offset <= last:
                states = decode(at.metadata)[max(0, first - at.offset) :]
                first = max(first, at.offset)
            extents.append(Extent(part.topic, part.partition, first, last, states[: last - first]))
        return extents

    def _asker(self, group: str) -> Consumer:
        """A client that can be asked how far a group is, and does not join it.

        The administrator's own call for this ends the process where the coordinator is just moving: librdkafka 2.16
        then reads through a null pointer (``rd_kafka_handle_OffsetFetch`` of a client without a group).
        """
        with self._asking:
            self.client()
            asker = self._askers.pop(group, None)
            if asker is None:
                asker = Consumer(self._given | {"group.id": group, "enable.auto.commit": False})
            self._askers[group] = asker
            if len(self._askers) > _ASKERS:
                self._askers.pop(next(iter(self._askers))).close()
            return asker

    async def depth(self, topic: str, group: str) -> Depth:
        """What is pending for ``group``."""
        ready = in_flight = 0
        for extent in await self.extents(topic, group):
            settled = extent.states.count(_SETTLED)
            out = len(extent.states) - settled - extent.states.count(0)
            in_flight += out
            ready += extent.end - extent.start - settled - out
        return Depth(ready, 0, in_flight)

    async def close(self) -> None:
        """Let go. Idempotent."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._threads.shutdown()
        with self._asking:
            self._admin = None
            for asker in self._askers.values():
                asker.close()
            self._askers.clear()


def _writable(topic: TopicMetadata) -> tuple[int, ...]:
    return tuple(number for number, part in sorted(topic.partitions.items()) if part.leader >= 0)
