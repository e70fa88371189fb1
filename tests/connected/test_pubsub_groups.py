"""Pub/Sub: what is made on the server, who is the first group, and which subscriptions are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("google.pubsub_v1")

import bus
from bus import BusURLError, Delivery, Message, NoSuchTopicError
from bus.pubsub import connection as connection_module
from bus.pubsub import wire
from bus.pubsub.adapter import PubsubBus
from bus.pubsub.connection import Connection
from tests.servers.pubsub import PubsubEmulator, pubsub_emulator

_PROJECT = "projects/taskbus-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubsubEmulator]:
    """One emulator for all tests, which use topics of their own."""
    with pubsub_emulator(tmp_path_factory.mktemp("pubsub")) as server:
        yield server


async def _call(b: bus.Bus, method: wire.Method, **fields: Any) -> Any:
    assert isinstance(b, PubsubBus)
    return await b._connection.call(method, method.request(**fields), "testing")


async def _take(consumer: bus.Consumer, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    while len(got) < count:
        batch = await consumer.receive(count - len(got), timeout=10)
        assert batch, f"{len(got)} of {count} came"
        got += batch
    return got


def test_what_is_made(server: PubsubEmulator) -> None:
    """A topic is made with a subscription that never expires and counts attempts, and one for its dead letters."""

    async def run() -> None:
        async with bus.connect(server.url) as b, await b.producer() as producer:
            await producer.publish("made", b"{}")
            assert await b.topics() == ["made", "made.dead"]
            found = await _call(b, wire.GET_SUBSCRIPTION, subscription=f"{_PROJECT}/subscriptions/taskbus-made")
            assert found.topic == f"{_PROJECT}/topics/taskbus-made"
            assert found.ack_deadline_seconds == 30
            assert found.message_retention_duration.seconds == 7 * 86400
            assert found.HasField("expiration_policy")
            assert not found.expiration_policy.HasField("ttl")
            assert found.dead_letter_policy.dead_letter_topic == f"{_PROJECT}/topics/taskbus-made.dead"
            assert found.dead_letter_policy.max_delivery_attempts == 100
            dead = await _call(b, wire.GET_SUBSCRIPTION, subscription=f"{_PROJECT}/subscriptions/taskbus-made.dead")
            assert not dead.HasField("dead_letter_policy")

    asyncio.run(run())


def test_health_is_told_without_asking(server: PubsubEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lately answered is healthy: looking costs no call, of which a project has a quota, until the answer is old."""

    async def run() -> None:
        async with bus.connect(server.url) as b:
            with monkeypatch.context() as patch:
                patch.delattr(Connection, "call")
                for _ in range(10):
                    assert (await b.health()).ok
            calls: list[wire.Method] = []
            call = Connection.call

            async def noted(self: Connection, method: wire.Method, *args: Any, **options: Any) -> Any:
                calls.append(method)
                return await call(self, method, *args, **options)

            monkeypatch.setattr(Connection, "call", noted)
            monkeypatch.setattr(connection_module, "_FRESH", 0.0)
            assert (await b.health()).ok
            assert calls == [wire.GET_TOPIC]

    asyncio.run(run())


def test_of_many_at_once_one_group_is_first(server: PubsubEmulator) -> None:
    """Ten consumers of each of five groups join at once: one group gets what was published before, the others none."""

    async def run() -> None:
        async with bus.connect(server.url) as b, bus.connect(server.url) as other:
            async with await b.producer() as producer:
                await producer.publish_many([Message("race", b"%d" % number) for number in range(50)])
            names = [f"Group.{number % 5}_" for number in range(50)]
            made = await asyncio.gather(
                *((b if number % 2 else other).consumer("race", name) for number, name in enumerate(names))
            )
            assert await b.groups("race") == sorted(set(names))
            subscriptions = {(each.group, each._joined.subscription) for each in made}  # type: ignore[attr-defined]
            assert len(subscriptions) == 5
            (first,) = {group for group, name in subscriptions if name == f"{_PROJECT}/subscriptions/taskbus-race"}
            got = dict.fromkeys(names, 0)
            for each in made[:5]:
                assert each.group is not None
                if each.group == first:
                    got[each.group] += len(await _take(each, 50))
                else:
                    got[each.group] += len(await each.receive(50, timeout=0.5))
            assert sorted(got.values()) == [0, 0, 0, 0, 50]

    asyncio.run(run())


def test_a_broadcast_leaves_nothing_behind(server: PubsubEmulator) -> None:
    """The subscription of a listener is deleted when it closes, and expires where it cannot."""

    async def run() -> None:
        async with bus.connect(server.url) as b:
            async with await b.consumer("casts", None) as listener:
                name = listener._joined.subscription  # type: ignore[attr-defined]
                found = await _call(b, wire.GET_SUBSCRIPTION, subscription=name)
                assert found.expiration_policy.ttl.seconds == 86400
                assert await b.groups("casts") == []
            with pytest.raises(NoSuchTopicError):
                await _call(b, wire.GET_SUBSCRIPTION, subscription=name)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("topic", "fields", "says"),
    [
        ("odd-push", {"push_config": {"push_endpoint": "https://127.0.0.1/x"}}, "pushes to an endpoint"),
        ("odd-filter", {"filter": 'attributes.a = "b"'}, "has a filter"),
        ("odd-order", {}, "keeps no order, and the URL says ordering=true"),
        ("odd-once", {}, "does not deliver exactly once"),
        ("odd-dead", {}, "has no dead-letter policy"),
    ],
)
def test_a_subscription_that_is_not_as_asked(
    server: PubsubEmulator, topic: str, fields: dict[str, Any], says: str
) -> None:
    """It is refused and not altered, and the error says why and what to do."""
    options = {"odd-order": "&ordering=true", "odd-once": "&exactly_once=true"}.get(topic, "")
    name = f"{_PROJECT}/subscriptions/taskbus-{topic}~g"

    async def run() -> None:
        async with bus.connect(server.url + options) as b:
            await (await b.consumer(topic, "first")).close()
            made = await _call(
                b, wire.CREATE_SUBSCRIPTION, name=name, topic=f"{_PROJECT}/topics/taskbus-{topic}", **fields
            )
            with pytest.raises(BusURLError, match=f"taskbus-{topic}~g {says}.* delete the subscription"):
                await b.consumer(topic, "g")
            assert await _call(b, wire.GET_SUBSCRIPTION, subscription=name) == made

    asyncio.run(run())


def test_a_subscription_of_another_topic(server: PubsubEmulator) -> None:
    """A name that is taken, or whose topic was deleted, is refused before anything can be lost by it."""

    async def run() -> None:
        async with bus.connect(server.url) as b, await b.producer() as producer:
            await (await b.consumer("theirs", "g")).close()
            name = f"{_PROJECT}/subscriptions/taskbus-ours"
            await _call(b, wire.CREATE_SUBSCRIPTION, name=name, topic=f"{_PROJECT}/topics/taskbus-theirs")
            with pytest.raises(BusURLError, match=r"taskbus-ours belongs to .*taskbus-theirs: delete it"):
                await producer.publish("ours", b"{}")
            await producer.publish("gone", b"{}")
            await _call(b, wire.DELETE_TOPIC, topic=f"{_PROJECT}/topics/taskbus-gone")
            with pytest.raises(BusURLError, match=r"taskbus-gone belongs to _deleted-topic_: delete it"):
                await producer.publish("gone", b"{}")

    asyncio.run(run())


def test_nothing_is_made_where_that_is_forbidden(server: PubsubEmulator) -> None:
    """With create=false a topic, its subscription or a group that is missing is an error; made by others they do."""
    topic, name = f"{_PROJECT}/topics/taskbus-given", f"{_PROJECT}/subscriptions/taskbus-given~g"

    async def run() -> None:
        url = f"{server.url}&create=false&max_attempts=0"
        async with bus.connect(url) as b, await b.producer() as producer:
            before = await b.topics()
            with pytest.raises(NoSuchTopicError):
                await producer.publish("given", b"{}")
            with pytest.raises(NoSuchTopicError, match=r"taskbus-given~g: make it"):
                await b.consumer("given", "g")
            assert await b.topics() == before
            await _call(b, wire.CREATE_TOPIC, name=topic)
            with pytest.raises(NoSuchTopicError, match="has no subscription: what is published would be lost"):
                await producer.publish("given", b"{}")
            await _call(b, wire.CREATE_SUBSCRIPTION, name=name, topic=topic, ack_deadline_seconds=20)
            await producer.publish("given", b"{}")
            async with await b.consumer("given", "g") as consumer:
                await consumer.ack(await _take(consumer, 1))
            assert await b.groups("given") == ["g"]

    asyncio.run(run())


def test_the_server_dead_letters(server: PubsubEmulator) -> None:
    """With max_attempts=5 a message that nobody can settle goes to the dead-letter topic, and attempts are counted."""

    async def run() -> None:
        async with bus.connect(f"{server.url}&max_attempts=5") as b, await b.producer() as producer:
            await producer.publish("poison", b"bad")
            seen = []
            async with await b.consumer("poison", "g") as consumer:
                while batch := await consumer.receive(1, timeout=1.5):
                    seen.append(batch[0].attempt)
                    await consumer.nack(batch)
            assert seen == [1, 2, 3, 4, 5]
            async with await b.consumer("poison.dead", "g") as consumer:
                assert [each.body for each in await _take(consumer, 1)] == [b"bad"]

    asyncio.run(run())


def test_order_by_key(server: PubsubEmulator) -> None:
    """With ordering=true messages of a key come in order, and keys arrive."""

    async def run() -> None:
        async with bus.connect(f"{server.url}&ordering=true") as b, await b.producer() as producer:
            messages = [Message("keys", b"%d" % number, key=f"k{number % 7}") for number in range(350)]
            for start in range(0, 350, 50):
                await producer.publish_many(messages[start : start + 50])
            await producer.publish("keys", b"350", key="ü" * 512)
            got: dict[str | None, list[int]] = {}
            async with await b.consumer("keys", "g") as consumer:
                for _ in range(351):
                    # Pub/Sub gives no more of a key while one is unsettled, but several of one key at once.
                    (delivery,) = await _take(consumer, 1)
                    got.setdefault(delivery.key, []).append(int(delivery.body))
                    await consumer.ack([delivery])
            assert got.pop("ü" * 512) == [350]
            assert got == {f"k{key}": list(range(key, 350, 7)) for key in range(7)}

    asyncio.run(run())


def test_keys_arrive_without_order_too(server: PubsubEmulator) -> None:
    """A key travels with its message; the empty one is a key like any other; what fits no key is refused."""

    async def run() -> None:
        async with bus.connect(server.url) as b, await b.producer() as producer:
            for key in ("a", "", None):
                await producer.publish("plain-keys", b"1", key=key)
            for key in ("x" * 1025, "\ud800"):
                with pytest.raises(bus.UnsupportedError, match="1024 bytes"):
                    await producer.publish("plain-keys", b"1", key=key)
            async with await b.consumer("plain-keys", "g") as consumer:
                assert {each.key for each in await _take(consumer, 3)} == {"a", "", None}

    asyncio.run(run())


def test_exactly_once_tells_what_was_lost(server: PubsubEmulator) -> None:
    """Where Pub/Sub refuses an acknowledgement the delivery is lost, and the others of the batch are settled."""

    async def run() -> None:
        async with bus.connect(f"{server.url}&exactly_once=true") as b, await b.producer() as producer:
            await producer.publish_many([Message("once", b"%d" % number) for number in range(3)])
            async with await b.consumer("once", "g") as late, await b.consumer("once", "g") as other:
                first, second, third = await _take(late, 3)
                # Behind the adapter's back, as if the lease had ended sooner than it can know.
                name = late._joined.subscription  # type: ignore[attr-defined]
                ids = [first.handle.ack_id]
                await _call(b, wire.MODIFY_ACK_DEADLINE, subscription=name, ack_ids=ids, ack_deadline_seconds=0)
                again = await _take(other, 1)
                assert again[0].id == first.id
                assert await late.extend([first, second]) == [first]
                with pytest.raises(bus.LeaseLostError) as caught:
                    await late.ack([first, second, third])
                assert caught.value.deliveries == (first,)
                await other.ack(again)
                assert await other.receive(10, timeout=0.5) == []

    asyncio.run(run())
