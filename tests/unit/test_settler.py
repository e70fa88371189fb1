"""Settling in spite of a bus that refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import orjson
import pytest

from bus import (
    BusError,
    ClosedError,
    Consumer,
    CorruptError,
    Delivery,
    FullError,
    LeaseLostError,
    Message,
    OutputClosedError,
    Producer,
    TooLargeError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
)
from task import Task, complete, reject
from task import settler as module
from task.dead import original
from task.settler import Settler
from task.stats import Stats
from task.verdict import Action, Verdict
from tests.unit.test_verdict import ended, judge


class Bus(Consumer, Producer):
    """Both ends of a bus that raises ``errors`` first, takes bodies up to ``limit``, and loses leases on request."""

    def __init__(self, *errors: BusError, limit: int = 1_000_000, lost: Sequence[Delivery] = (), atomic: bool = False):
        self.errors = list(errors)
        self.limit = limit
        self.lost = list(lost)
        self.atomic = atomic
        self.published: list[Message] = []
        self.settled: list[tuple[str, Delivery, float, str | None]] = []
        self.before: Callable[[], object] = lambda: None

    @property
    def ended(self) -> bool:
        return False

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        raise AssertionError("settling receives nothing")

    def _try(self) -> None:
        self.before()
        if self.errors:
            raise self.errors.pop(0)

    async def publish_many(self, messages: Sequence[Message]) -> None:
        self._try()
        for message in messages:
            if len(message.body) > self.limit:
                raise TooLargeError("too large", size=len(message.body), limit=self.limit)
        self.published += messages

    def _settle(self, how: str, deliveries: Sequence[Delivery], delay: float = 0.0, reason: str | None = None) -> None:
        gone = [delivery for delivery in deliveries if delivery in self.lost]
        self.settled += [(how, delivery, delay, reason) for delivery in deliveries if delivery not in gone]
        self.lost = [delivery for delivery in self.lost if delivery not in gone]
        if gone:
            raise LeaseLostError("gone", deliveries=gone)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        if not self.published:
            self._try()
        self._settle("ack", deliveries)

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        self._try()
        self._settle("nack", deliveries, delay, reason)

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        self._try()
        self._settle("release", deliveries, delay)

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return []

    async def finish(self, deliveries: Sequence[Delivery], messages: Sequence[Message], producer: Producer) -> None:
        gone = [delivery for delivery in deliveries if delivery in self.lost]
        if self.atomic and gone:
            self.lost = []
            raise LeaseLostError("gone", deliveries=gone)
        await super().finish(deliveries, messages, producer)

    async def close(self) -> None:
        pass


class Run:
    """One settling of ``verdicts`` and what it told."""

    def __init__(self, bus: Bus, *verdicts: Verdict) -> None:
        self.bus = bus
        self.stats = Stats()
        self.gone: list[Delivery] = []
        self.settler = Settler(bus, bus, self.stats, atomic=bus.atomic, lost=self.gone.extend)
        asyncio.run(self.settler.settle(verdicts))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a moment."""
    monkeypatch.setattr(module, "_FIRST", 0.0001)
    monkeypatch.setattr(module, "_LONGEST", 0.001)


def done(number: int = 1, msg: str = "") -> Verdict:
    """A verdict that publishes one done task."""
    assignment = ended(complete(msg))
    assignment.delivery.id = f"m{number}"
    return judge().ended(assignment)


def test_published_and_only_then_acknowledged() -> None:
    """A batch is published at once and acknowledged."""
    verdicts = [done(1), done(2)]
    run = Run(Bus(), *verdicts)

    assert [message.body for message in run.bus.published] == [verdict.messages[0].body for verdict in verdicts]
    assert run.bus.settled == [("ack", verdict.delivery, 0.0, None) for verdict in verdicts]


def test_each_by_its_action() -> None:
    """finish, nack and release, with delay and reason."""
    again = Verdict(Delivery(b"", "a"), Action.NACK, "retried", (), 3.0, "why")
    back = Verdict(Delivery(b"", "b"), Action.RELEASE, "released", (), 2.0)
    run = Run(Bus(), again, back, done())

    assert sorted(run.bus.settled, key=lambda each: each[0])[1:] == [
        ("nack", again.delivery, 3.0, "why"),
        ("release", back.delivery, 2.0, None),
    ]


@pytest.mark.parametrize("kind", [FullError, UnreachableError, UnconfirmedError, CorruptError])
@pytest.mark.parametrize("action", [Action.FINISH, Action.NACK, Action.RELEASE])
def test_it_tries_until_it_works(kind: type[BusError], action: Action) -> None:
    """Whatever the bus says, nothing is given up; the trouble is told while it lasts, and counted."""
    verdict = done() if action is Action.FINISH else Verdict(Delivery(b"", "a"), action, "x")
    bus, stats, seen = Bus(*[kind("no")] * 20), Stats(), []
    settler = Settler(bus, bus, stats, atomic=False, lost=lambda deliveries: None)
    bus.before = lambda: seen.append(settler.trouble)

    asyncio.run(settler.settle([verdict]))

    assert seen[:21] == ["", *["no"] * 20]
    assert [each[1] for each in bus.settled] == [verdict.delivery]
    assert (stats.bus_errors, settler.trouble) == (20, "")


@pytest.mark.parametrize("verdict", [done(), judge().ended(ended(reject("no")))], ids=["done", "given up"])
def test_what_was_confirmed_is_not_published_again(verdict: Verdict) -> None:
    """While a bus that does not finish atomically refuses acknowledgements, only those are tried again."""

    class Refusing(Bus):
        refusals = 3

        async def ack(self, deliveries: Sequence[Delivery]) -> None:
            if self.refusals:
                self.refusals -= 1
                raise UnconfirmedError("no")
            await super().ack(deliveries)

    run = Run(Refusing(), verdict)

    assert run.bus.published == list(verdict.messages)
    assert [each[1] for each in run.bus.settled] == [verdict.delivery]
    assert run.stats.bus_errors == 3


@pytest.mark.parametrize("error", [OutputClosedError("gone"), ClosedError("closed")])
def test_what_no_repetition_can_mend_is_raised(error: BusError) -> None:
    """A closed pipe stays closed."""
    with pytest.raises(type(error)):
        Run(Bus(error), done())


@pytest.mark.parametrize("atomic", [True, False])
def test_a_lease_lost_while_settling(atomic: bool) -> None:
    """Its owner is told; all others of the batch are settled, once."""
    verdicts = [done(number) for number in range(3)]
    run = Run(Bus(lost=[verdicts[1].delivery], atomic=atomic), *verdicts)

    assert run.gone == [verdicts[1].delivery]
    assert [each[1].id for each in run.bus.settled] == ["m0", "m2"]
    assert len(run.bus.published) == (2 if atomic else 3)


@pytest.mark.parametrize("action", [Action.NACK, Action.RELEASE])
def test_a_lease_lost_while_handing_back(action: Action) -> None:
    """There is nothing left to hand back."""
    verdict = Verdict(Delivery(b"", "a"), action, "x")
    run = Run(Bus(lost=[verdict.delivery]), verdict)

    assert (run.gone, run.bus.settled) == ([verdict.delivery], [])


def test_a_bus_without_delay() -> None:
    """What cannot be handed back later is handed back now."""
    verdict = Verdict(Delivery(b"", "a"), Action.RELEASE, "released", (), 5.0)
    bus = Bus(UnsupportedError("no delay"))
    Run(bus, verdict)

    assert bus.settled == [("nack", verdict.delivery, 0.0, None)]


def test_one_too_large_of_a_batch() -> None:
    """The others go as they are, the large one with its message cut."""
    verdicts = [done(1), done(2, "x" * 5000), done(3)]
    run = Run(Bus(limit=2000), *verdicts)
    tasks = [orjson.loads(message.body) for message in run.bus.published]

    assert [len(task["msg"]) < 600 for task in tasks] == [True] * 3
    assert "(cut: the done task was " in tasks[1]["msg"]
    assert tasks[1]["task"] == "v"
    assert [each[1].id for each in run.bus.settled] == ["m1", "m2", "m3"]


def test_one_that_is_too_large_without_its_message() -> None:
    """Type, id, result and times are kept, and cut if they must be."""
    assignment = ended(complete("x" * 5000))
    assignment.task = Task("t", "v" * 5000, id="i" * 5000)
    run = Run(Bus(limit=4000), judge().ended(assignment))
    (task,) = (orjson.loads(message.body) for message in run.bus.published)

    assert task.keys() == {"type", "task", "id", "result", "msg", "started", "completed"}
    assert (task["type"], task["task"], task["id"]) == ("t", "", "i" * 1000)


def test_a_task_with_a_key_called_dead() -> None:
    """It is no dead letter, however large."""
    assignment = ended(complete("x" * 5000))
    assignment.task = Task("t", "v", id="7", extra={"dead": "yes"})
    run = Run(Bus(limit=2000), judge().ended(assignment))

    assert orjson.loads(run.bus.published[0].body)["dead"] == "yes"


def test_a_dead_letter_and_a_done_task_that_do_not_fit() -> None:
    """The letter comes in parts, the done task is cut."""
    assignment = ended(reject("r" * 5000))
    assignment.delivery.body = b"\xff" * 9000
    run = Run(Bus(limit=4000), judge().ended(assignment))
    letters = [orjson.loads(message.body) for message in run.bus.published if message.topic == "t.dead"]

    assert len(letters) > 1
    assert b"".join(original(letter) for letter in letters) == b"\xff" * 9000
    assert [message.topic for message in run.bus.published if message.topic != "t.dead"] == ["done"]


def test_what_is_given_up_is_told_to_the_bus() -> None:
    """After its dead letter was published it is terminated and not acknowledged, unless the bus finishes atomically."""

    class Telling(Bus):
        async def terminate(self, deliveries: Sequence[Delivery], *, reason: str) -> None:
            assert [message.topic for message in self.published][:3] == ["done", "t.dead", "done"]
            self._settle("terminate", deliveries, 0.0, reason)

    def settled(bus: Bus) -> list[tuple[str, str | None]]:
        run = Run(bus, done(1), judge().ended(ended(reject("no"))))
        return [(how, reason) for how, _, _, reason in run.bus.settled]

    assert settled(Telling()) == [("ack", None), ("terminate", "rejected")]
    lost = ended(reject("no")), ended(complete())
    run = Run(Telling(lost=[each.delivery for each in lost]), done(1), *(judge().ended(each) for each in lost))
    assert run.gone == [lost[1].delivery, lost[0].delivery]
    assert [how for how, *_ in run.bus.settled] == ["ack"]
    assert settled(Telling(atomic=True)) == settled(Bus()) == [("ack", None)] * 2


def test_a_limit_that_nothing_fits() -> None:
    """A bus that takes next to nothing is told, not tried for ever."""
    with pytest.raises(TooLargeError):
        Run(Bus(limit=10), done())


def test_acknowledging_on_receipt() -> None:
    """It too is tried until it works; what was lost is told."""
    deliveries = [Delivery(b"", "a"), Delivery(b"", "b")]
    bus = Bus(UnreachableError("no"), FullError("no"), lost=deliveries[:1])
    gone: list[Delivery] = []

    asyncio.run(Settler(bus, bus, Stats(), atomic=False, lost=gone.extend).acknowledge(deliveries))

    assert gone == deliveries[:1]
    assert bus.settled == [("ack", deliveries[1], 0.0, None)]


@pytest.mark.parametrize(("result", "how"), [("retried", "nack"), ("released", "release")])
def test_one_for_later_that_is_too_large(result: str, how: str) -> None:
    """A task that with its moment is too large for the bus is handed back, for the bus to delay it as it can."""
    bus = Bus(limit=10)
    delivery = Delivery(b"{}", "m")
    verdict = Verdict(delivery, Action.FINISH, result, (Message("delay", b"x" * 11),), 90.0, "why")
    Run(bus, verdict)

    assert [(what, one, delay) for what, one, delay, _ in bus.settled] == [(how, delivery, 90.0)]
    assert bus.published == []
