"""Topics and subscriptions: made if missing, verified, never altered.

Pub/Sub drops what is published to a topic without a subscription. So a topic is made together with one, before anything
is published, and that becomes the subscription of the first group to join. Which group was first is settled by making a
topic of a fixed name, which only one can do; its labels say who did (https://cloud.google.com/pubsub/docs/labels).
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, NamedTuple

from grpc import StatusCode

from bus.errors import BusURLError, NoSuchTopicError, UnreachableError
from bus.names import dead_topic
from bus.pubsub import wire
from bus.pubsub.connection import Connection
from bus.pubsub.names import Names, decode_labels, encode_labels
from bus.pubsub.options import PubsubOptions

__all__ = ["Joined", "Store"]

#: What Pub/Sub takes as a subscription's own deadline, seconds.
_DEADLINES = (10, 600)
_DAY = 86400
_THERE = (StatusCode.ALREADY_EXISTS,)
_MISSING = (StatusCode.NOT_FOUND,)
_PAGE = 1000
#: How often, and after which pause, something is looked for that exists and is not found yet.
_LOOKS, _PAUSE = 10, 0.2


class Joined(NamedTuple):
    """The subscription of a consumer. ``deadline`` is its own, in seconds; ``epoch`` as :attr:`Consumer.epoch`."""

    subscription: str
    deadline: float
    epoch: str | None


class Store:
    """What is on the server, for one bus."""

    def __init__(self, connection: Connection, names: Names, options: PubsubOptions) -> None:
        self._connection = connection
        self._names = names
        self._options = options
        self._known: set[str] = set()
        self._generation = 0
        self._making = asyncio.Lock()

    def forget(self, topic: str) -> None:
        """Look again before the next use: something of it was not there."""
        self._known.discard(topic)

    async def ensure(self, topic: str) -> None:
        """See that the topic is there and that something keeps what is published.

        Raises:
            NoSuchTopicError: one of both is missing, and making them was forbidden by ``create=false``.
            BusURLError: the project does not exist, or a subscription has the name but belongs elsewhere.
        """
        if self._generation != self._connection.generation:
            self._generation = self._connection.generation
            self._known.clear()
        if topic in self._known:
            return
        async with self._making:
            if topic in self._known:
                return
            if self._options.create:
                await self._make(topic)
            elif not await self._subscriptions(topic):
                raise NoSuchTopicError(
                    f"the topic {self._names.topic(topic)} has no subscription: what is published would be lost; make "
                    "one, or leave create=false out",
                    topic=topic,
                )
            self._known.add(topic)

    async def _make(self, topic: str) -> None:
        name = self._names.first(topic)
        found = await self._subscription(name, topic)
        if found is None:
            if self._dead(topic) and topic not in self._known:
                await self._make(dead_topic(topic))
            request = wire.CREATE_TOPIC.request(name=self._names.topic(topic))
            await self._create(wire.CREATE_TOPIC, request, topic)
            found = await self._create_subscription(name, topic)
        self._check_topic(found, topic)

    async def _create(self, method: wire.Method, request: Any, topic: str) -> Any:
        """What was made, or ``None`` if somebody else did. Only the project can be missing here."""
        try:
            return await self._connection.call(method, request, f"making {request.name}", topic=topic, quietly=_THERE)
        except NoSuchTopicError as error:
            raise BusURLError(f"{error}; check the project in the URL", topic=topic) from error

    async def join(self, topic: str, group: str) -> Joined:
        """See that the group is there.

        Raises:
            BusURLError: its subscription is not what the URL asks for.
            NoSuchTopicError: it is missing, and making it was forbidden by ``create=false``.
        """
        create = self._options.create
        if create:
            await self.ensure(topic)
        note = await self._note(topic)
        if note is None and create:
            note = await self._make_note(topic, group)
        labels = dict(note.labels) if note is not None else {}
        is_first = decode_labels(labels) == group
        name = self._names.first(topic) if is_first else self._names.group(topic, group)
        found = await self._subscription(name, topic)
        if found is None and create:
            found = await self._create_subscription(name, topic)
        if found is None:
            raise NoSuchTopicError(
                f"there is no subscription {name}: make it, or leave create=false out of the URL", topic=topic
            )
        self._check_topic(found, topic)
        self._check(found, topic)
        return Joined(name, float(found.ack_deadline_seconds), labels.get("epoch"))

    async def look(self, topic: str, group: str) -> tuple[str, Any]:
        """The name of a group's subscription, and the subscription if it is there. Makes none."""
        note = await self._note(topic)
        is_first = note is not None and decode_labels(dict(note.labels)) == group
        name = self._names.first(topic) if is_first else self._names.group(topic, group)
        return name, await self._subscription(name, topic)

    async def _make_note(self, topic: str, group: str) -> Any:
        """Say that ``group`` is first, unless another one does: then what that says."""
        labels = encode_labels(group) | {"epoch": uuid.uuid4().hex}
        request = wire.CREATE_TOPIC.request(name=self._names.note(topic), labels=labels)
        for _ in range(_LOOKS):
            note = await self._create(wire.CREATE_TOPIC, request, topic) or await self._note(topic)
            if note is not None:
                return note
            await asyncio.sleep(_PAUSE)
        raise UnreachableError(f"{request.name} exists and is not found: try again", topic=topic)

    async def listen(self, topic: str) -> Joined:
        """A subscription for one listener, from now on, which Pub/Sub deletes should nobody else do it."""
        if self._options.create:
            await self.ensure(topic)
        request = wire.CREATE_SUBSCRIPTION.request(
            name=self._names.broadcast(topic),
            topic=self._names.topic(topic),
            ack_deadline_seconds=self._deadline(),
        )
        request.expiration_policy.ttl.seconds = _DAY
        request.message_retention_duration.seconds = 600
        await self._connection.call(wire.CREATE_SUBSCRIPTION, request, f"listening to {topic}", topic=topic)
        return Joined(request.name, float(request.ack_deadline_seconds), None)

    async def listens(self, topic: str, name: str) -> bool:
        """Whether a listener's subscription is there."""
        return await self._subscription(name, topic) is not None

    async def leave(self, topic: str, name: str) -> None:
        """Delete a listener's subscription."""
        request = wire.DELETE_SUBSCRIPTION.request(subscription=name)
        doing = f"leaving {topic}"
        await self._connection.call(wire.DELETE_SUBSCRIPTION, request, doing, topic=topic, quietly=_MISSING)

    async def _note(self, topic: str) -> Any:
        request = wire.GET_TOPIC.request(topic=self._names.note(topic))
        doing = f"looking at {topic}"
        return await self._connection.call(wire.GET_TOPIC, request, doing, topic=topic, quietly=_MISSING)

    async def _subscription(self, name: str, topic: str) -> Any:
        request = wire.GET_SUBSCRIPTION.request(subscription=name)
        doing = f"looking at {name}"
        return await self._connection.call(wire.GET_SUBSCRIPTION, request, doing, topic=topic, quietly=_MISSING)

    async def _create_subscription(self, name: str, topic: str) -> Any:
        options = self._options
        request = wire.CREATE_SUBSCRIPTION.request(
            name=name,
            topic=self._names.topic(topic),
            ack_deadline_seconds=self._deadline(),
            enable_message_ordering=options.ordering,
            enable_exactly_once_delivery=options.exactly_once,
        )
        request.message_retention_duration.seconds = int(options.retention)
        # Present and empty: it never expires, however long nobody works. By default it would after 31 days.
        request.expiration_policy.SetInParent()
        if self._dead(topic):
            request.dead_letter_policy.dead_letter_topic = self._names.topic(dead_topic(topic))
            request.dead_letter_policy.max_delivery_attempts = options.max_attempts
        made = await self._create(wire.CREATE_SUBSCRIPTION, request, topic)
        return made if made is not None else await self._subscription(name, topic)

    def _deadline(self) -> int:
        return min(max(int(self._options.lease), _DEADLINES[0]), _DEADLINES[1])

    def _dead(self, topic: str) -> bool:
        """Whether a subscription of this topic has a dead-letter policy. Dead letters stay where they are."""
        return self._options.max_attempts > 0 and dead_topic(topic) != topic

    def _check_topic(self, found: Any, topic: str) -> None:
        if found is None or found.topic != self._names.topic(topic):
            what = "was deleted while it was made" if found is None else f"belongs to {found.topic}"
            name = self._names.first(topic) if found is None else found.name
            raise BusURLError(f"the subscription {name} {what}: delete it, and it is made again", topic=topic)

    def _check(self, found: Any, topic: str) -> None:
        """Refuse what would lose messages or not do what the URL says. Nothing is altered."""
        options = self._options
        for wrong, what in (
            (found.push_config.push_endpoint, "pushes to an endpoint"),
            (found.bigquery_config.table, "writes to BigQuery"),
            (found.cloud_storage_config.bucket, "writes to Cloud Storage"),
            (found.detached, "is detached from its topic"),
            (found.filter, "has a filter, which drops messages"),
            (options.ordering and not found.enable_message_ordering, "keeps no order, and the URL says ordering=true"),
            (
                options.exactly_once and not found.enable_exactly_once_delivery,
                "does not deliver exactly once, and the URL says exactly_once=true",
            ),
            (
                self._dead(topic) and not found.HasField("dead_letter_policy"),
                "has no dead-letter policy, so that attempts are not counted, and the URL does not say max_attempts=0",
            ),
        ):
            if wrong:
                raise BusURLError(
                    f"the subscription {found.name} {what}: change the URL, or delete the subscription and it is made "
                    "again, without what it holds",
                    topic=topic,
                )

    async def _subscriptions(self, topic: str) -> list[str]:
        """Names of every subscription. Raises NoSuchTopicError."""
        request = wire.LIST_SUBSCRIPTIONS.request(topic=self._names.topic(topic), page_size=_PAGE)
        found: list[str] = []
        while True:
            page = await self._connection.call(wire.LIST_SUBSCRIPTIONS, request, f"looking at {topic}", topic=topic)
            found += page.subscriptions
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def topics(self) -> list[str]:
        """Every topic."""
        request = wire.LIST_TOPICS.request(project=f"projects/{self._names.project}", page_size=_PAGE)
        found: list[str] = []
        while True:
            page = await self._connection.call(wire.LIST_TOPICS, request, "listing topics")
            found += (name for topic in page.topics if (name := self._names.topic_of(topic.name)) is not None)
            if not page.next_page_token:
                return sorted(found)
            request.page_token = page.next_page_token

    async def groups(self, topic: str) -> list[str]:
        """Every group of a topic."""
        try:
            names = await self._subscriptions(topic)
        except NoSuchTopicError:
            return []
        found = {group for name in names if (group := self._names.group_of(topic, name))}
        if self._names.first(topic) in names and (note := await self._note(topic)) is not None:
            found.add(decode_labels(dict(note.labels)))
        return sorted(found)

    async def probe(self, timeout: float) -> None:
        """Raises a BusError unless Pub/Sub answers these credentials; they need not be allowed to look."""
        request = wire.GET_TOPIC.request(topic=self._names.topic("~"))
        quietly = (StatusCode.NOT_FOUND, StatusCode.PERMISSION_DENIED)
        await self._connection.call(wire.GET_TOPIC, request, "connecting", timeout=timeout, tries=1, quietly=quietly)
