"""Dead letters are sent back once, by filter; the others stay, in their order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from apps.redrive.choice import Choice
from apps.redrive.letters import NotRedrivableError, read_letter
from apps.redrive.pace import Pace, parse_rate
from apps.redrive.walk import Sent, Walk
from bus import Bus, Consumer, Delivery, LeaseLostError, Message, Producer, TooLargeError, UnreachableError, connect
from task import Dialect, Task, encode
from task.codec import decode
from task.dead import dead_letter, split_dead_letter
from task.times import format_time

pytestmark = pytest.mark.no_faults("a command that runs once ends with what the bus told it, and is run again")


def letter(
    task: Task | bytes, code: str = "crashed", reason: str = "it broke", message: str = "m", **more: Any
) -> bytes:
    """The dead letter of a task, or of bytes that are none."""
    body = encode(task) if isinstance(task, Task) else task
    known = task if isinstance(task, Task) else None
    topic = more.pop("topic", known.type if known else "t")
    data = dead_letter(Delivery(body, message), topic=topic, group="g", reason=reason, code=code, task=known)
    return json.dumps(json.loads(data) | more).encode()


def numbered(*numbers: int) -> list[bytes]:
    """Letters of tasks with these numbers as ids and values."""
    return [letter(Task("t", str(n), id=str(n)), message=f"m{n}") for n in numbers]


class Redriven:
    """What came of one run."""

    def __init__(self, walk: Walk, told: list[bytes]) -> None:
        self.walked = walk.walked
        self.told = told


class Topics:
    """A bus with dead letters."""

    def __init__(self, bus: Bus, producer: Producer) -> None:
        self.bus, self.producer = bus, producer

    async def bury(self, *letters: bytes) -> None:
        """Put these into t.dead."""
        await self.producer.publish_many([Message("t.dead", body) for body in letters])

    async def redrive(
        self,
        *,
        execute: bool = True,
        to: str | None = None,
        limit: int | None = None,
        rate: float | None = None,
        producer: Producer | None = None,
        consumer: Consumer | None = None,
        atomic: bool | None = None,
        **choice: Any,
    ) -> Redriven:
        """Walk once."""
        told: list[bytes] = []

        def tell(sent: Sequence[Sent]) -> None:
            told.extend(one.message.body for one in sent)

        consumer = consumer or await self.bus.consumer("t.dead", "redrive")
        walk = Walk(
            self.bus,
            consumer,
            (producer or self.producer) if execute else None,
            Choice(**choice),
            to=to,
            elsewhere=False,
            limit=limit,
            pace=Pace(rate),
            atomic=self.bus.capabilities.atomic_finish if atomic is None else atomic,
            tell=tell,
        )
        try:
            await walk.run()
        finally:
            await consumer.close()
        return Redriven(walk, told)

    async def found(self, topic: str, group: str = "reader") -> list[dict[str, Any]]:
        """What is there for a group, in order, received and acknowledged."""
        found: list[dict[str, Any]] = []
        async with await self.bus.consumer(topic, group) as consumer:
            while deliveries := await consumer.receive(1000, timeout=0.05):
                found += [json.loads(delivery.body) for delivery in deliveries]
                await consumer.ack(deliveries)
        return found

    async def ids(self, topic: str, group: str = "reader") -> list[str]:
        return [data["id"] for data in await self.found(topic, group)]


@asynccontextmanager
async def topics(options: str = "") -> AsyncIterator[Topics]:
    async with connect(f"memory:{uuid4().hex}{options}") as bus, await bus.producer() as producer:
        yield Topics(bus, producer)


def test_all_are_sent_back() -> None:
    """Every task is sent to its topic with its id and a count, confirmed and told; no letter is left."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(1, 2, 3), letter(Task("u", id="4", job="j", meta={"a": "b", "redriven": "2"})))
            run = await t.redrive()

            assert await t.ids("t") == ["1", "2", "3"]
            (other,) = await t.found("u")
            assert (other["id"], other["job"], other["meta"]) == ("4", "j", {"a": "b", "redriven": "3"})
            assert (run.walked.seen, dict(run.walked.sent)) == (4, {("t", "crashed"): 3, ("u", "crashed"): 1})
            assert [decode(body).meta["redriven"] for body in run.told] == ["1", "1", "1", "3"]
            assert (await t.bus.depth("t.dead", "redrive")).total == 0

    asyncio.run(main())


def test_a_preview_changes_nothing() -> None:
    """Without a producer all is told that would be sent; every letter stays, in order, its attempt not counted."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(*range(1200)))
            for _ in range(2):
                run = await t.redrive(execute=False)
                assert (run.walked.seen, run.walked.sent.total(), len(run.told)) == (1200, 1200, 1200)

            assert await t.found("t") == []
            async with await t.bus.consumer("t.dead", "redrive") as consumer:
                left = await consumer.receive(2000)
                assert [json.loads(delivery.body)["id"] for delivery in left] == [str(n) for n in range(1200)]
                assert {delivery.attempt for delivery in left} == {1}

    asyncio.run(main())


def test_what_does_not_fit_stays_in_order() -> None:
    """A walk through thousands ends by itself; what it did not send is there again, in the old order."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(*(letter(Task("t", id=str(n)), "crashed" if n % 3 else "rejected") for n in range(3000)))
            run = await t.redrive(codes=["rejected"])

            assert run.walked.sent == {("t", "rejected"): 1000}
            assert await t.ids("t") == [str(n) for n in range(0, 3000, 3)]
            assert await t.ids("t.dead", "redrive") == [str(n) for n in range(3000) if n % 3]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("choice", "ids"),
    [
        ({"codes": ["rejected", "late"]}, "2"),
        ({"reasons": ["*DISK*"]}, ""),
        ({"reasons": ["*disk*"]}, "2"),
        ({"types": ["u*"]}, "35"),
        ({"jobs": ["*"]}, "1"),
        ({"values": ["s3://a/*"]}, "12"),
        ({"ids": ["1", "3"]}, "13"),
        ({"meta": [("k", "v*")]}, "12"),
        ({"meta": [("k", "v*"), ("k", "v2")]}, "2"),
        ({"types": ["t"], "codes": ["crashed"]}, "1"),
        ({"since": datetime(2026, 1, 2, tzinfo=UTC)}, "1235"),
        ({"until": datetime(2026, 1, 2, tzinfo=UTC)}, "4"),
        ({"since": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)}, "4"),
    ],
)
def test_filters(choice: dict[str, Any], ids: str) -> None:
    """All that is given must fit; of several texts for one thing, any; what is no task has only its letter."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(
                letter(Task("t", "s3://a/1", id="1", job="j", meta={"k": "v1"})),
                letter(Task("t", "s3://a/2", id="2", meta={"k": "v2"}), "rejected", "the disk is full"),
                letter(Task("u", "x", id="3")),
                letter(Task("v", id="4"), dead="2026-01-01T00:00:00Z"),
                letter(b"rubbish", type="u", id="5"),
            )
            run = await t.redrive(execute=False, **choice)
            assert "".join("5" if b == b"rubbish" else decode(b).id or "" for b in run.told) == ids

    asyncio.run(main())


def test_limit() -> None:
    """With a limit the oldest are sent and the rest stays."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(1, 2, 3, 4, 5))
            run = await t.redrive(limit=2)
            assert run.walked.sent.total() == 2
            assert await t.ids("t") == ["1", "2"]
            assert await t.ids("t.dead", "redrive") == ["3", "4", "5"]

    asyncio.run(main())


def test_rate() -> None:
    """No more are sent than the rate allows, and all are."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(*range(30)))
            loop = asyncio.get_running_loop()
            began = loop.time()
            await t.redrive(rate=100.0)
            assert loop.time() - began >= 0.19  # three batches of ten: the second after 0.1 s, the third after 0.2 s
            assert len(await t.ids("t")) == 30

    asyncio.run(main())


@pytest.mark.parametrize(("text", "rate"), [("100/s", 100), ("30/m", 0.5), ("7200/h", 2), ("2.5", 2.5), (" 1 / s ", 1)])
def test_rates(text: str, rate: float) -> None:
    """A rate is a number per second, minute or hour."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "-1/s", "1/d", "x", "1/", "inf", "nan", "1//s"])
def test_wrong_rates(text: str) -> None:
    """Anything else is refused, with an example."""
    with pytest.raises(ValueError, match="100/s"):
        parse_rate(text)


def test_no_task_dies_twice_in_one_run() -> None:
    """A task that dies again while the walk goes on is not sent again by it, so that the walk ends."""

    class Deadly(Producer):
        """Whatever is sent to t dies at once."""

        def __init__(self, inner: Producer) -> None:
            self.inner = inner
            self.sent = 0

        async def publish_many(self, messages: Sequence[Message]) -> None:
            self.sent += len(messages)
            await self.inner.publish_many(
                [Message("t.dead", letter(decode(m.body), message="again")) for m in messages]
            )

        async def close(self) -> None:
            await self.inner.close()

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(*range(700)))
            deadly = Deadly(t.producer)
            run = await t.redrive(producer=deadly, atomic=False)
            assert (deadly.sent, run.walked.sent.total(), run.walked.seen) == (700, 700, 700)
            assert (await t.bus.depth("t.dead", "redrive")).total == 700

    asyncio.run(main())


def test_two_letters_of_one_task() -> None:
    """The first of two letters of the same task is sent; the second stays, and it is said why."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(1, 1, 2))
            run = await t.redrive()
            assert await t.ids("t") == ["1", "2"]
            assert run.walked.stay == {"its task was sent in this run already": 1}
            assert await t.ids("t.dead", "redrive") == ["1"]

    asyncio.run(main())


def test_one_id_on_two_topics() -> None:
    """Tasks of different topics that have the same id are two tasks."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(letter(Task("t", id="1")), letter(Task("u", id="1")))
            run = await t.redrive()
            assert run.walked.sent.total() == 2

    asyncio.run(main())


def test_what_cannot_be_sent_back_stays() -> None:
    """What is no dead letter, does not say where it came from, or belongs where it is stays, and is counted."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(
                b"rubbish",
                b"[]",
                b'{"type":"t","task":"v"}',
                b'{"body":"x","topic":"not a topic"}',
                b'{"body_base64":"%%","topic":"t"}',
                b'{"body_base64":"eA==","topic":"t","part":3,"parts":2}',
                letter(Task("t", id="1"), topic="t.dead"),
            )
            run = await t.redrive()
            assert run.walked.sent.total() == 0
            assert run.walked.stay == {
                "it is no dead letter": 4,
                "it does not say which topic it came from (see --to)": 1,
                "it is part of a dead letter, but does not say which": 1,
                "it would be sent to where it is (see --to)": 1,
            }
            assert (await t.bus.depth("t.dead", "redrive")).ready == 7

    asyncio.run(main())


def test_to_another_topic() -> None:
    """--to sends everything there, also what does not say where it came from."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(1), letter(Task("u", id="2"), topic=""), letter(b"rubbish", topic="!"))
            await t.redrive(to="elsewhere")
            async with await t.bus.consumer("elsewhere", "reader") as consumer:
                bodies = [delivery.body for delivery in await consumer.receive(10)]
            assert [decode(body).id for body in bodies[:2]] == ["1", "2"]
            assert bodies[2] == b"rubbish"

    asyncio.run(main())


def test_what_is_no_task_is_sent_as_it_was() -> None:
    """Bytes that no worker could read go back unchanged."""
    found = read_letter(Delivery(letter(b"\xff\x00"), "x"), None)
    assert found.message(None).body == b"\xff\x00"


def test_a_task_without_id_gets_that_of_its_letter() -> None:
    """The receiver gave it an id, which the letter has; sent back it is the same task."""
    body = letter(b'{"type":"t","task":"v"}', id="derived")
    found = read_letter(Delivery(body, "x"), None)
    assert decode(found.message(None).body).id == "derived"


def test_the_go_dialect() -> None:
    """A task of the Go toolkit goes back in its dialect."""
    found = read_letter(Delivery(letter(Task("t", "v", id="1", meta={"a": "b"}, dialect=Dialect.GO)), "x"), None)
    data = json.loads(found.message(None).body)
    assert (data["info"], data["meta"]) == ("v", "a=b&redriven=1")


def test_attempts_are_counted_anew() -> None:
    """A task that was delayed between its attempts begins with the first when it is sent back."""
    found = read_letter(Delivery(letter(Task("t", id="1", meta={"attempts": "9", "a": "b"})), "x"), None)
    assert decode(found.message(None).body).meta == {"a": "b", "redriven": "1"}


@pytest.mark.parametrize("before", ["x", "-1", "²", "9" * 10, ""])
def test_a_count_that_is_none(before: str) -> None:
    """A foreign meta of that name begins anew."""
    found = read_letter(Delivery(letter(Task("t", id="1", meta={"redriven": before})), "x"), None)
    assert decode(found.message(None).body).meta["redriven"] == "1"


def test_the_same_letter_has_the_same_message_id() -> None:
    """A bus that looks at ids takes a letter once that is sent twice, and another letter of the same task too."""

    def sent_as(body: bytes) -> str | None:
        return read_letter(Delivery(body, "x"), None).message(None).id

    first = letter(Task("t", id="1"), dead="2026-01-01T00:00:00Z")
    later = letter(Task("t", id="1"), dead="2026-01-02T00:00:00Z")
    assert sent_as(first) == sent_as(first) != sent_as(later)


def test_letters_in_parts() -> None:
    """A letter in parts is sent as one message and all parts acknowledged; one with a part missing stays whole."""

    def parts(id: str) -> list[bytes]:
        task = Task("t", "x" * 5000, id=id)
        delivery = Delivery(encode(task), f"m{id}")
        return split_dead_letter(delivery, topic="t", group="g", reason="r", code="too-large", task=task, limit=1500)

    async def main() -> None:
        async with topics() as t:
            whole, broken = parts("1"), parts("2")
            assert len(whole) > 3
            await t.bury(whole[2], broken[0], *whole[:2], *whole[3:], *broken[2:])
            run = await t.redrive()

            (task,) = await t.found("t")
            assert (task["id"], task["task"], task["meta"]) == ("1", "x" * 5000, {"redriven": "1"})
            assert run.walked.stay == {"parts of a dead letter whose other parts were not found": len(broken) - 1}
            assert (await t.bus.depth("t.dead", "redrive")).ready == len(broken) - 1

    asyncio.run(main())


def test_what_is_too_large_stays() -> None:
    """A task that the bus does not take stays, and does not hold up the others."""

    class Small(Producer):
        def __init__(self, inner: Producer) -> None:
            self.inner = inner

        async def publish_many(self, messages: Sequence[Message]) -> None:
            for message in messages:
                if len(message.body) > 500:
                    raise TooLargeError("too large", topic=message.topic, size=len(message.body), limit=500)
            await self.inner.publish_many(messages)

        async def close(self) -> None:
            await self.inner.close()

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(1), letter(Task("t", "x" * 600, id="2")), *numbered(3))
            run = await t.redrive(producer=Small(t.producer), atomic=False)
            assert await t.ids("t") == ["1", "3"]
            assert run.walked.stay == {"too large for t": 1}
            assert await t.ids("t.dead", "redrive") == ["2"]

    asyncio.run(main())


def test_nothing_is_acknowledged_that_was_not_confirmed() -> None:
    """When the bus fails, the error is raised; what was not sent is there again."""

    class Failing(Producer):
        def __init__(self, inner: Producer) -> None:
            self.inner = inner
            self.calls = 0

        async def publish_many(self, messages: Sequence[Message]) -> None:
            self.calls += 1
            if self.calls > 1:
                raise UnreachableError("gone")
            await self.inner.publish_many(messages)

        async def close(self) -> None:
            await self.inner.close()

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(*range(1200)))
            with pytest.raises(UnreachableError):
                await t.redrive(producer=Failing(t.producer), atomic=False)
            assert await t.ids("t") == [str(n) for n in range(500)]
            assert await t.ids("t.dead", "redrive") == [str(n) for n in range(500, 1200)]

    asyncio.run(main())


class Losing(Consumer):
    """Says of the first finish that the lease of the first delivery was lost."""

    def __init__(self, inner: Consumer, atomic: bool) -> None:
        self.inner, self.atomic = inner, atomic
        self.topic, self.group, self.lease = inner.topic, inner.group, inner.lease
        self.lost = False

    @property
    def ended(self) -> bool:
        return self.inner.ended

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        if self.lost:
            return await self.inner.finish(deliveries, messages, producer)
        self.lost = True
        if not self.atomic:
            await self.inner.finish(deliveries[1:], messages, producer)
        raise LeaseLostError("lost", deliveries=deliveries[:1])

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        return await self.inner.receive(limit, timeout)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self.inner.ack(deliveries)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        await self.inner.nack(deliveries, delay=delay, reason=reason)

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        await self.inner.release(deliveries, delay=delay)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return await self.inner.extend(deliveries)

    async def close(self) -> None:
        await self.inner.close()


@pytest.mark.parametrize(("atomic", "ids"), [(True, ["2", "3"]), (False, ["1", "2", "3"])])
def test_a_lost_lease(atomic: bool, ids: list[str]) -> None:
    """Where finish is atomic the others are sent without the lost one; where not, it was sent already."""

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(1, 2, 3))
            consumer = Losing(await t.bus.consumer("t.dead", "redrive"), atomic)
            run = await t.redrive(consumer=consumer, atomic=atomic)
            assert await t.ids("t") == ids
            assert (run.walked.sent.total(), run.walked.lost) == (len(ids), 1)

    asyncio.run(main())


def test_leases_are_kept_while_it_is_slow() -> None:
    """At a low rate what is held stays ours for longer than its lease."""

    async def main() -> None:
        async with topics("?lease=300ms") as t:
            await t.bury(*numbered(*range(8)))
            run = await t.redrive(rate=8.0)
            assert (run.walked.sent.total(), run.walked.lost, run.walked.cut) == (8, 0, "")
            assert len(await t.ids("t")) == 8

    asyncio.run(main())


def test_a_letter_that_comes_again_ends_the_walk() -> None:
    """When leases are lost and letters come again, the walk ends and says so, rather than going round."""

    class Forgetful(Losing):
        async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
            return []

        async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
            found = await super().receive(1, timeout)
            if found and not self.lost:
                self.lost = True
                await self.inner.nack(found)
            return found

    async def main() -> None:
        async with topics() as t:
            await t.bury(*numbered(1, 2, 3))
            consumer = Forgetful(await t.bus.consumer("t.dead", "redrive"), atomic=True)
            run = await t.redrive(consumer=consumer, codes=["none"])
            assert run.walked.cut == "letters came again while they were held"
            assert (await t.bus.depth("t.dead", "redrive")).ready == 3

    asyncio.run(main())


def test_moments_without_a_letter_date() -> None:
    """A letter that does not tell when it died is not within bounds."""
    data = json.loads(letter(Task("t", id="1")))
    del data["dead"]
    found = read_letter(Delivery(json.dumps(data).encode(), "x"), None)
    assert not Choice(since=datetime(2000, 1, 1, tzinfo=UTC)).fits(found)
    assert not Choice(until=datetime.now(UTC) + timedelta(days=1)).fits(found)
    assert Choice().fits(found)


def test_wrong_dates_are_none() -> None:
    """A date that is no date counts as missing."""
    found = read_letter(Delivery(letter(Task("t"), dead="yesterday"), "x"), None)
    assert found.dead is None
    again = read_letter(Delivery(letter(Task("t"), dead=format_time(datetime(2026, 1, 1, tzinfo=UTC))), "x"), None)
    assert again.dead == datetime(2026, 1, 1, tzinfo=UTC)


def test_not_redrivable_says_why() -> None:
    """The reason is for people."""
    with pytest.raises(NotRedrivableError, match="no dead letter"):
        read_letter(Delivery(b"{}", "x"), None)
