"""Random histories of a group, each step checked against a model so simple that it is plainly right."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bus.capabilities import Order
from bus.conformance.bench import Bench, same
from bus.conformance.target import ManualClock, Target
from bus.contract import Consumer, Delivery, Message
from bus.errors import LeaseLostError

__all__ = ["run_model"]

Result = TypeVar("Result")
#: A bus may round times; whether something this close to its time is due is left open.
_SLACK = 0.05
_DELAYS = st.sampled_from([0.0, 0.0, 5.0, 40.0])
_WHICH = st.integers(0, 30)
_CONSUMERS = 3
#: Settled deliveries that are still tried: they must stay settled.
_SETTLED = 2
#: How long a bus takes is not what is tested here.
_UNHURRIED: dict[str, Any] = {
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
}


def run_model(target: Target, **changed: Any) -> None:
    """Run random histories on new topics of ``target``, which needs a manual clock, leases and shared consumers.

    ``changed`` are settings of Hypothesis other than the usual 25 examples of 40 steps.

    Raises:
        AssertionError: with the shortest history found that shows a loss, an invention, haste or a wrong count.
    """

    class Histories(GroupModel):
        def __init__(self) -> None:
            super().__init__(target)

    run_state_machine_as_test(
        Histories,
        settings=settings(settings(max_examples=25, stateful_step_count=40, deadline=None, **_UNHURRIED), **changed),
    )


@dataclass(eq=False)
class _Known:
    """What the model knows of one message. ``counts`` holds the attempts so far that the contract allows."""

    body: bytes
    due: float
    fresh: bool
    counts: frozenset[int] = frozenset([0])
    history: tuple[str, ...] = ()
    id: str | None = None
    acked: bool = False
    holder: Consumer | None = None
    delivery: Delivery | None = None
    since: float = 0.0

    def hand_back(self, due: float) -> None:
        self.holder = self.delivery = None
        self.due = due


@dataclass(eq=False)
class _Handed:
    """One delivery, which somebody may still try to settle."""

    consumer: Consumer
    delivery: Delivery
    known: _Known
    settled: bool = False

    @property
    def lost(self) -> bool:
        return self.known.delivery is not self.delivery


class GroupModel(RuleBasedStateMachine):
    """``due`` is when a message may next be delivered: the end of its delay, or of its holder's lease."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        if target.clock is None:
            raise TypeError("the model needs a target with a manual clock")
        self.target = target
        self.clock: ManualClock = target.clock
        self.runner = asyncio.Runner()
        self.bench = Bench(target)
        self.caps = self.bench.caps
        self.messages: dict[bytes, _Known] = {}
        self.handed: list[_Handed] = []
        self.run(self.bench.bus.open())
        self.consumers = [self.run(self.bench.consumer()) for _ in range(_CONSUMERS)]
        self.lease = self.consumers[0].lease or 0.0
        self.publish(6, 0.0)

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(step)

    @rule(count=st.integers(1, 3), delay=_DELAYS)
    def publish(self, count: int, delay: float) -> None:
        delay = min(delay, self.caps.publish_delay or 0.0)
        now = self.clock()
        new = [b'{"n":%d}' % number for number in range(len(self.messages), len(self.messages) + count)]
        for body in new:
            self.messages[body] = _Known(body, now + delay if delay else 0.0, fresh=not delay)
        producer = self.run(self.bench.producer())
        self.run(producer.publish_many([Message(self.bench.topic, body, delay=delay) for body in new]))

    @rule(which=_WHICH)
    def receive_one(self, which: int) -> None:
        self.receive(which, 1)

    @rule(which=_WHICH, limit=st.integers(2, 5))
    def receive(self, which: int, limit: int) -> None:
        now = self.clock()
        consumer = self.consumers[which % _CONSUMERS]
        pending = [known for known in self.messages.values() if not known.acked]
        must = [known for known in pending if known.due <= now - _SLACK]
        may = [known for known in pending if known.due <= now + _SLACK]
        timeout = self.target.patience if must else self.target.quiet / 5
        batch = self.run(consumer.receive(limit, timeout=timeout))
        assert batch or not must, f"{[known.body for known in must]} should have come"
        assert len(batch) <= limit
        got = [self._got(delivery, may, consumer, now) for delivery in batch]
        if self.caps.order is Order.TOPIC:
            first = [known for known in got if known.fresh]
            assert first == [known for known in must if known.fresh][: len(first)], "not in the order of publishing"
        for known in got:
            known.fresh = False

    @precondition(lambda self: self.handed)
    @rule(which=_WHICH)
    def ack(self, which: int) -> None:
        handed = self._pick(which)
        if self._settled(handed, handed.consumer.ack([handed.delivery])):
            handed.known.acked = True

    @precondition(lambda self: self.handed)
    @rule(which=_WHICH, delay=_DELAYS, reason=st.sampled_from([None, "a", "b"]))
    def nack(self, which: int, delay: float, reason: str | None) -> None:
        delay = min(delay, self.caps.nack_delay or 0.0)
        handed, now = self._pick(which), self.clock()
        if self._settled(handed, handed.consumer.nack([handed.delivery], delay=delay, reason=reason)):
            handed.known.hand_back(now + delay if delay else 0.0)
            if reason is not None:
                handed.known.history += (reason,)

    @precondition(lambda self: self.handed)
    @rule(which=_WHICH, delay=_DELAYS)
    def release(self, which: int, delay: float) -> None:
        delay = min(delay, self.caps.nack_delay or 0.0)
        handed, now = self._pick(which), self.clock()
        if self._settled(handed, handed.consumer.release([handed.delivery], delay=delay)):
            handed.known.hand_back(now + delay if delay else 0.0)
            handed.known.counts = self._uncounted(handed.known)

    @precondition(lambda self: self.handed)
    @rule(which=_WHICH)
    def extend(self, which: int) -> None:
        handed, now = self._pick(which), self.clock()
        expired = handed.known.due <= now + _SLACK
        lost = self.run(handed.consumer.extend([handed.delivery]))
        if handed.settled:
            return
        if handed.lost:
            assert lost == [handed.delivery]
        elif not lost:
            handed.known.due = min(now + self.lease, handed.known.since + (self.caps.lease_ceiling or float("inf")))
        else:
            assert expired, "a lease was lost before its time"
            handed.known.hand_back(0.0)

    @rule(which=_WHICH, crash=st.booleans())
    def leave(self, which: int, crash: bool) -> None:
        now = self.clock()
        index = which % _CONSUMERS
        consumer, self.consumers[index] = self.consumers[index], self.run(self.bench.consumer())
        self.handed = [handed for handed in self.handed if handed.consumer is not consumer]
        if crash:
            return
        self.run(consumer.close())
        for known in self.messages.values():
            if known.holder is consumer and not known.acked:
                maybe_expired = known.due <= now + _SLACK
                uncounted = self._uncounted(known)
                known.hand_back(0.0)
                known.counts = uncounted | known.counts if maybe_expired else uncounted

    @rule(part=st.sampled_from([0.05, 0.25, 0.6, 1.03]))
    def advance(self, part: float) -> None:
        self.clock.advance(self.lease * part)

    @invariant()
    def depth_is_true(self) -> None:
        if self.caps.depth:
            pending = sum(not known.acked for known in self.messages.values())
            assert self.run(self.bench.bus.depth(self.bench.topic, "g")).total == pending

    def teardown(self) -> None:
        try:
            # After a step that failed the model is behind, and what it said now would hide that failure.
            if sys.exception() is None:
                self._drain()
        finally:
            self.run(self.bench.close())
            self.run(self.bench.bus.close())
            self.runner.close()

    def _drain(self) -> None:
        self.clock.advance(self.lease * 2 + 100.0)
        consumer = self.run(self.bench.consumer())
        left = [known for known in self.messages.values() if not known.acked]
        got = self.run(self.bench.take(consumer, len(left)))
        got += self.run(consumer.receive(10, timeout=self.target.quiet / 5))
        same(got, [known.body for known in left])
        for delivery in got:
            self._got(delivery, left, consumer, self.clock())

    def _got(self, delivery: Delivery, may: list[_Known], consumer: Consumer, now: float) -> _Known:
        known = self.messages.get(delivery.body)
        assert known is not None, f"{delivery.body!r} was never published"
        assert known in may, f"{delivery.body!r} came though it was acknowledged, delayed or leased"
        assert known.id in (None, delivery.id), "a redelivered message has another id"
        may.remove(known)
        if self.caps.attempts:
            assert delivery.attempt - 1 in known.counts, f"attempt {delivery.attempt} after {set(known.counts)}"
        if self.caps.history:
            assert delivery.history == known.history
        known.id = delivery.id
        known.counts = frozenset([delivery.attempt])
        known.holder, known.delivery, known.since, known.due = consumer, delivery, now, now + self.lease
        self.handed.append(_Handed(consumer, delivery, known))
        return known

    def _pick(self, which: int) -> _Handed:
        return self.handed[which % len(self.handed)]

    def _settled(self, handed: _Handed, settling: Coroutine[Any, Any, None]) -> bool:
        """Whether this settled the delivery now; asserts that it was allowed to, or not to."""
        expired = handed.known.due <= self.clock() + _SLACK
        refused: tuple[Delivery, ...] = ()
        try:
            self.run(settling)
        except LeaseLostError as error:
            refused = error.deliveries
        if refused:
            assert refused == (handed.delivery,)
            assert not handed.settled, "a delivery settled before was reported lost"
            assert handed.lost or expired, "a lease was lost before its time"
            if not handed.lost:
                handed.known.hand_back(0.0)
            return False
        if handed.settled:
            return False
        assert not handed.lost, "a delivery that another consumer has was settled"
        handed.settled = True
        for old in [each for each in self.handed if each.settled][:-_SETTLED]:
            self.handed.remove(old)
        return True

    def _uncounted(self, known: _Known) -> frozenset[int]:
        if self.caps.release_counts:
            return known.counts
        return frozenset(count - 1 for count in known.counts)
