"""Streams and their consumers: made if missing, verified, never altered."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from bus.contract import Depth, Peeked
from bus.errors import BusURLError, NoSuchTopicError, UnreachableError
from bus.nats.connection import Connection
from bus.nats.names import ANCHOR, decode, encode, stream_name, stream_topic, subject_name
from bus.nats.options import NatsOptions

__all__ = ["DEDUPE", "LEASE", "Store"]

#: Seconds within which a message id published again is dropped.
DEDUPE = 120.0
#: Lease of a new group, in seconds.
LEASE = 30.0
#: Seconds after which the server forgets a broadcast consumer that nobody pulls from.
_FORGOTTEN = 300
#: Seconds between looks at whether all nodes of a cluster know of a new consumer.
_LOOK_AGAIN = 0.05
#: Seconds after which a node that does not know of it counts as down.
_GRACE = 1.0
_NANO = 10**9
#: What the consumer of a group must be, and must not have: else messages would be given up, or never come.
_CONSUMER = {"ack_policy": "explicit", "deliver_policy": "all", "max_deliver": -1, "max_ack_pending": -1}
_ABSENT = ("deliver_subject", "filter_subject", "filter_subjects", "backoff")


class Store:
    """What is stored on the server, for one bus."""

    def __init__(self, connection: Connection, options: NatsOptions) -> None:
        self._connection = connection
        self._options = options
        self._known: set[str] = set()
        #: Streams by topic, of which all nodes once knew a consumer: that is not lost with a node.
        self._kept: dict[str, str] = {}

    @property
    def prefix(self) -> str:
        """First part of every name."""
        return self._options.prefix

    @property
    def replicas(self) -> int:
        """Copies of every stream."""
        return self._options.replicas

    def forget(self, topic: str) -> None:
        """Look again before the next publish: the stream was not there."""
        self._known.discard(topic)

    async def ensure(self, topic: str) -> None:
        """See that the stream is there and keeps messages."""
        if topic in self._known:
            return
        wanted = self._wanted(topic)
        info = await self.stream(topic)
        if info is None:
            await self._connection.api(
                f"STREAM.CREATE.{wanted['name']}", wanted, f"making the stream of {topic}", topic
            )
            info = await self.stream(topic) or {}
        config = info.get("config", {})
        for field, value in wanted.items():
            if (found := config.get(field)) != value:
                raise BusURLError(
                    f"the stream {wanted['name']} has {field} {found}, not {value}: it is not altered; change it with "
                    "the tools of NATS, or delete it, or use another prefix or number of replicas in the URL",
                    topic=topic,
                )
        if not info.get("state", {}).get("consumer_count"):
            # Without any consumer a stream with interest retention stores nothing.
            self._kept.pop(topic, None)
            await self._make(topic, ANCHOR, {"durable_name": ANCHOR, "ack_policy": "explicit", "deliver_policy": "all"})
        if self._kept.get(topic) != info.get("created"):
            await self._everywhere(topic)
            self._kept[topic] = str(info.get("created"))
        self._known.add(topic)

    async def _everywhere(self, topic: str, group: str | None = None) -> None:
        """Wait until every replica has the consumer of this group, or of any.

        A consumer is there for whoever made it before all nodes know of it, and a node that knows of none drops what it
        is given to store, though the publisher is told that it is stored. A node that is down drops nothing, and is not
        told from one that is late: after a moment most of them are enough.
        """
        if self._options.replicas == 1:
            return
        stream = stream_name(self._options.prefix, topic)
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline, grace = began + self._connection.timeout, began + min(_GRACE, self._connection.timeout / 2)
        while True:
            all_nodes = loop.time() < grace
            found = await self._pages(f"CONSUMER.LIST.{stream}", "consumers", topic)
            keeping = [
                info for info in found if (name := info["config"].get("durable_name")) and name == (group or name)
            ]
            known = (await self.stream(topic) or {}).get("state", {}).get("consumer_count")
            if known and any(self._on_nodes(info, every=all_nodes) for info in keeping):
                return
            if loop.time() > deadline:
                raise UnreachableError(f"{topic}: its consumers are not on all replicas of the stream yet", topic=topic)
            await asyncio.sleep(_LOOK_AGAIN)

    def _on_nodes(self, info: dict[str, Any], *, every: bool) -> bool:
        cluster = info.get("cluster") or {}
        others = cluster.get("replicas") or []
        nodes = bool(cluster.get("leader")) + sum(bool(peer.get("current")) for peer in others)
        return nodes >= (self._options.replicas if every else self._options.replicas // 2 + 1)

    def _wanted(self, topic: str) -> dict[str, Any]:
        """What a stream must be, so that nothing accepted is dropped. Limits of size are the administrator's."""
        return {
            "name": stream_name(self._options.prefix, topic),
            "subjects": [subject_name(self._options.prefix, topic)],
            "retention": "interest",
            "storage": "file",
            "discard": "new",
            "num_replicas": self._options.replicas,
            "duplicate_window": int(DEDUPE * _NANO),
            "max_age": 0,
            "max_msgs_per_subject": -1,
        }

    async def stream(self, topic: str) -> dict[str, Any] | None:
        """What the server knows of a topic's stream."""
        name = stream_name(self._options.prefix, topic)
        try:
            return await self._connection.look(f"STREAM.INFO.{name}", {}, f"looking at {topic}", topic)
        except NoSuchTopicError:
            return None

    async def group(self, topic: str, group: str) -> dict[str, Any] | None:
        """What the server knows of a group's consumer."""
        name = stream_name(self._options.prefix, topic)
        try:
            subject = f"CONSUMER.INFO.{name}.{encode(group)}"
            return await self._connection.look(subject, {}, f"looking at {topic}", topic)
        except NoSuchTopicError:
            return None

    async def join(self, topic: str, group: str) -> float:
        """See that the group is there; returns its lease."""
        await self.ensure(topic)
        info = await self.group(topic, group)
        if info is None:
            lease = self._options.lease or LEASE
            info = await self._make(
                topic,
                encode(group),
                {"durable_name": encode(group), "ack_wait": int(lease * _NANO), **_CONSUMER},
            )
            await self._everywhere(topic, encode(group))
            await self._drop_anchor(topic)
        config = info["config"]
        found = config.get("ack_wait", 0) / _NANO
        for field, value in {**_CONSUMER, **dict.fromkeys(_ABSENT)}.items():
            if (other := config.get(field) or None) != value:
                raise BusURLError(
                    f"{topic}: the consumer of the group {group} has {field} {other}, not {value}: it is not altered; "
                    "change or delete it with the tools of NATS",
                    topic=topic,
                )
        if self._options.lease is not None and abs(found - self._options.lease) > 1e-6:
            raise BusURLError(
                f"{topic}: the group {group} has a lease of {found:g} s, the URL says {self._options.lease:g} s: "
                "leave the option lease out, or delete the consumer",
                topic=topic,
            )
        return float(found)

    async def listen(self, topic: str, name: str, start: int) -> None:
        """Make a broadcast consumer, from the sequence ``start`` on."""
        config = {
            "name": name,
            "ack_policy": "none",
            "inactive_threshold": _FORGOTTEN * _NANO,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
        }
        await self._make(topic, name, config)

    async def leave(self, topic: str, name: str) -> None:
        """Delete a broadcast consumer."""
        stream = stream_name(self._options.prefix, topic)
        await self._connection.api(f"CONSUMER.DELETE.{stream}.{name}", {}, f"leaving {topic}", topic)

    async def _make(self, topic: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
        stream = stream_name(self._options.prefix, topic)
        body = {"stream_name": stream, "config": config, "action": "create"}
        doing = f"making a consumer of {topic}"
        return await self._connection.api(f"CONSUMER.CREATE.{stream}.{name}", body, doing, topic)

    async def _drop_anchor(self, topic: str) -> None:
        try:
            await self.leave(topic, ANCHOR)
        except NoSuchTopicError:
            return

    async def _pages(self, subject: str, key: str, topic: str | None = None) -> list[Any]:
        found: list[Any] = []
        while True:
            page = await self._connection.look(subject, {"offset": len(found)}, "listing", topic)
            more = page.get(key) or []
            found += more
            if not more or len(found) >= page.get("total", 0):
                return found

    async def topics(self) -> list[str]:
        """Every topic."""
        names = await self._pages("STREAM.NAMES", "streams")
        return sorted(topic for name in names if (topic := stream_topic(self._options.prefix, name)) is not None)

    async def groups(self, topic: str) -> list[str]:
        """Every group of a topic."""
        stream = stream_name(self._options.prefix, topic)
        try:
            found = await self._pages(f"CONSUMER.LIST.{stream}", "consumers", topic)
        except NoSuchTopicError:
            return []
        durables = (info["config"].get("durable_name") for info in found)
        return sorted(decode(name) for name in durables if name and name != ANCHOR)

    async def depth(self, topic: str, group: str) -> Depth:
        """What is pending. A nacked message counts as in flight until it is delivered again."""
        if info := await self.group(topic, group):
            return Depth(info["num_pending"], 0, info["num_ack_pending"])
        stream = await self.stream(topic)
        return Depth(stream["state"]["messages"] if stream else 0)

    async def peek(self, topic: str, group: str | None, limit: int) -> list[Peeked]:
        """The oldest stored messages that the group may still have to settle."""
        info = None if group is None else await self.group(topic, group)
        sequence = info["ack_floor"]["stream_seq"] + 1 if info else 1
        delivered = info["delivered"]["stream_seq"] if info else 0
        pending = info["num_ack_pending"] if info else 0
        stream = stream_name(self._options.prefix, topic)
        subject = subject_name(self._options.prefix, topic)
        found: list[Peeked] = []
        while len(found) < limit:
            ask = {"seq": sequence, "next_by_subj": subject}
            try:
                answer = await self._connection.api(f"STREAM.MSG.GET.{stream}", ask, f"peeking at {topic}", topic)
            except NoSuchTopicError:
                break
            message = answer["message"]
            sequence = message["seq"] + 1
            body = base64.b64decode(message.get("data") or "")
            if message["seq"] > delivered:
                found.append(Peeked(str(message["seq"]), body))
            elif pending:
                found.append(Peeked(str(message["seq"]), body, "in-flight", 1))
        return found

    async def check(self) -> None:
        """Raises a BusError unless JetStream answers."""
        await self._connection.api("INFO", {}, "asking for JetStream")
