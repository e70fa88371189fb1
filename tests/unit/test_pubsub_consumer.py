"""The consumer of the pubsub bus before a connection that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

pytest.importorskip("google.pubsub_v1")

from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from bus import UnauthorisedError, UnconfirmedError, UnreachableError, UnsupportedError, fence
from bus.pubsub import consumer as consumer_module
from bus.pubsub import wire
from bus.pubsub.connection import Connection
from bus.pubsub.consumer import PubsubConsumer
from bus.pubsub.options import PubsubOptions
from bus.pubsub.store import Joined, Store
from tests.helpers import await_until

Answer = Callable[[wire.Method, Any], Any]


class _Connection:
    """Notes every call."""

    generation = 0
    timeout = 10.0

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.emulated = False
        self.fresh = True
        self.silent = False
        self.calls: list[tuple[wire.Method, Any]] = []

    async def call(self, method: wire.Method, request: Any, doing: str, **options: Any) -> Any:
        self.calls.append((method, request))
        await asyncio.sleep(0)
        answer = self.answer(method, request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def of(self, method: wire.Method) -> list[Any]:
        return [request for each, request in self.calls if each is method]


class _Store:
    def __init__(self) -> None:
        #: What a look whether the server answers comes to, one after the other, and then well.
        self.probes: list[Exception | None] = []
        self.probed = 0

    def forget(self, topic: str) -> None:
        pass

    async def probe(self, timeout: float) -> None:
        self.probed += 1
        error = self.probes.pop(0) if self.probes else None
        if error is not None:
            raise error

    async def join(self, topic: str, group: str) -> Joined:
        return Joined("subscription", 30.0, "epoch")


async def _consumer(answer: Answer, store: _Store | None = None, **options: Any) -> tuple[PubsubConsumer, _Connection]:
    connection = _Connection(answer)
    made = PubsubConsumer(
        cast(Connection, connection),
        cast(Store, store or _Store()),
        PubsubOptions(**options),
        "t",
        "g",
        lambda gone: None,
    )
    await made.join()
    return made, connection


def _pulled(*ids: str) -> Any:
    answer = wire.PULL.answer()
    for id in ids:
        received = answer.received_messages.add(ack_id=f"ack-{id}", delivery_attempt=3)
        received.message.data = b"{}"
        received.message.message_id = id
    return answer


def _once(*pulls: Any) -> Answer:
    """These answers to pulls, and then nothing; every other call succeeds."""
    left = list(pulls)

    def answer(method: wire.Method, request: Any) -> Any:
        return left.pop(0) if left and method is wire.PULL else None

    return answer


def _refusal(**ids: str) -> UnsupportedError:
    raw = Status(code=3)
    raw.details.add().Pack(ErrorInfo(metadata={f"ack-{id}": f"{why}_FAILURE_X" for id, why in ids.items()}))
    error = UnsupportedError("some failed")
    details = Metadata(("grpc-status-details-bin", raw.SerializeToString()))
    error.__cause__ = AioRpcError(StatusCode.INVALID_ARGUMENT, Metadata(), details)
    return error


def test_a_lease_that_is_the_subscriptions_costs_no_call() -> None:
    """With the deadline of the subscription a pull is the only call; with another each message is given that lease."""

    async def run() -> None:
        for lease, asked in ((30.0, []), (12.0, [12])):
            consumer, connection = await _consumer(_once(_pulled("1")), lease=lease)
            (delivery,) = await consumer.receive(7)
            assert (delivery.id, delivery.attempt) == ("1", 3)
            assert [request.max_messages for request in connection.of(wire.PULL)] == [7]
            assert [request.ack_deadline_seconds for request in connection.of(wire.MODIFY_ACK_DEADLINE)] == asked
            await consumer.close()

    asyncio.run(run())


def test_what_waited_too_long_is_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that came when nobody waited any more is not begun with a lease that is about to end."""
    now = [100.0]
    for module in (consumer_module, fence):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])

    async def run() -> None:
        consumer, connection = await _consumer(_once(_pulled("1", "2"), _pulled("3")))
        assert await consumer.receive(2, timeout=0.0) == []
        assert consumer._pulling is not None
        await consumer._pulling
        now[0] += 16.0
        assert [delivery.id for delivery in await consumer.receive(2)] == ["3"]
        (back,) = connection.of(wire.MODIFY_ACK_DEADLINE)
        assert (sorted(back.ack_ids), back.ack_deadline_seconds) == (["ack-1", "ack-2"], 0)
        await consumer.close()

    asyncio.run(run())


@pytest.mark.parametrize("answer", [None, UnreachableError("away"), UnauthorisedError("no")])
def test_a_server_that_answers_at_once_is_not_asked_again_at_once(answer: Exception | None) -> None:
    """Empty answers that did not wait, and failures, are followed by a pause, and a failure is told."""

    async def run() -> None:
        consumer, connection = await _consumer(lambda method, request: answer)
        assert await consumer.receive(1, timeout=0.5) == []
        assert 2 <= len(connection.of(wire.PULL)) <= 8
        assert consumer.trouble == (str(answer) if answer else "")
        await consumer.close()

    asyncio.run(run())


def test_trouble_ends_with_the_next_answer() -> None:
    """After a failure the first answer, though empty, means that messages may come again."""

    async def run() -> None:
        consumer, _ = await _consumer(_once(UnreachableError("away"), wire.PULL.answer(), _pulled("1")))
        assert len(await consumer.receive(1, timeout=5)) == 1
        assert consumer.trouble == ""
        await consumer.close()

    asyncio.run(run())


def test_a_pull_that_ran_out_is_no_answer() -> None:
    """Where nothing was answered lately, or the emulator would have said so, it is asked whether anybody is there."""

    async def run() -> None:
        store = _Store()
        consumer, connection = await _consumer(lambda method, request: None, store)
        assert await consumer.receive(1, timeout=0.3) == []
        assert store.probed == 0
        connection.fresh = False
        store.probes = [UnconfirmedError("no answer")] * 2
        assert await consumer.receive(1, timeout=0.15) == []
        assert consumer.trouble == "no answer"
        await await_until(lambda: store.probed >= 1)
        # A pull of a minute would tell less than a question.
        connection.fresh = connection.silent = True
        pulls = len(connection.of(wire.PULL))
        assert await consumer.receive(1, timeout=0.3) == []
        await await_until(lambda: not store.probes)
        assert len(connection.of(wire.PULL)) <= pulls + 1
        connection.silent = False
        connection.emulated = True
        probed = store.probed
        assert await consumer.receive(1, timeout=1.0) == []
        assert store.probed > probed
        assert consumer.trouble == ""
        await consumer.close()

    asyncio.run(run())


def test_a_passing_refusal_is_tried_again() -> None:
    """Ids that an exactly-once subscription refuses in passing are acknowledged again, and only those."""

    async def run() -> None:
        refusals = [_refusal(**{"1": "TRANSIENT", "2": "PERMANENT"})]

        def answer(method: wire.Method, request: Any) -> Any:
            if method is wire.PULL:
                return _pulled("1", "2", "3")
            return refusals.pop() if refusals else None

        consumer, connection = await _consumer(answer)
        held = await consumer.receive(3)
        lost = await consumer.extend(held)
        assert [delivery.id for delivery in lost] == ["2"]
        asked = [list(request.ack_ids) for request in connection.of(wire.MODIFY_ACK_DEADLINE)]
        assert asked == [["ack-1", "ack-2", "ack-3"], ["ack-1"]]
        await consumer.close()

    asyncio.run(run())


def test_ids_go_in_requests_of_a_thousand() -> None:
    """A request of Pub/Sub has a limited size; 2,500 acknowledgements are three of them."""

    async def run() -> None:
        consumer, connection = await _consumer(
            lambda method, request: _pulled(*map(str, range(2500))) if method is wire.PULL else None
        )
        held = await consumer.receive(2500)
        await consumer.ack(held)
        assert [len(request.ack_ids) for request in connection.of(wire.ACKNOWLEDGE)] == [1000, 1000, 500]
        await consumer.close()

    asyncio.run(run())


def test_a_delay_is_whole_seconds_up_to_ten_minutes() -> None:
    """A nack comes again not before its delay: rounded up, and cut at what Pub/Sub can."""

    async def run() -> None:
        consumer, connection = await _consumer(
            lambda method, request: _pulled("1", "2", "3") if method is wire.PULL else None
        )
        for delivery, delay in zip(await consumer.receive(3), (0.2, 7000.0, -1.0), strict=True):
            await consumer.nack([delivery], delay=delay)
        assert [each.ack_deadline_seconds for each in connection.of(wire.MODIFY_ACK_DEADLINE)] == [1, 600, 0]
        await consumer.close()

    asyncio.run(run())
