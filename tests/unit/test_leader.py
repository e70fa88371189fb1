"""Which of several replicas is at work: never two by their own clocks, and always one again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from task.errors import StateError
from taskmasters.bucket import Bucket, KeySeat
from taskmasters.leader import Held, Leader, Seat
from taskmasters.store import open_store
from taskmasters.store.seat import LEADER, SqlSeat
from tests.helpers import await_until
from tests.servers.nats import nats_server

LEASE = 6.0


class Time:
    """A monotonic clock that is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


#: Gives the seat of an election.
Seats = Callable[[str], Seat]


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "nats"])
def seats(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Seats]:
    """An empty database of each kind, and an empty bucket."""
    with ExitStack() as stack:
        if request.param == "nats":
            bucket = Bucket(f"{stack.enter_context(nats_server(tmp_path)).url}/leaders")
            stack.callback(bucket.close)
            yield lambda name: KeySeat(bucket, f"{name}.leader")
        else:
            place = str(tmp_path / "state.db")
            if request.param != "sqlite":
                place = request.getfixturevalue(request.param).new()
            store = open_store(place, LEADER)
            stack.callback(store.close)
            yield lambda name: SqlSeat(store, name)


def test_the_first_leads_until_it_is_silent(seats: Seats) -> None:
    """One leads; another takes over a lease after the last beat it saw, when the first knows that it leads no more."""
    time = Time()
    first, second = (Leader(seats("cron"), "cron", LEASE, monotonic=time) for _ in range(2))
    for _ in range(5):
        first.beat()
        second.beat()
        assert (first.leads, second.leads) == (True, False)
        time.now += LEASE / 4
    for _ in range(3):
        second.beat()
        assert not second.leads
        time.now += LEASE / 4
    assert not first.leads
    time.now += LEASE / 2
    second.beat()

    assert second.leads
    first.beat()
    assert (first.leads, second.leads) == (False, True)


def test_who_resigns_is_replaced_at_once(seats: Seats) -> None:
    """A replica that ends cleanly is not waited for, and one that does not lead takes nothing away."""
    time = Time()
    first, second = (Leader(seats("cron"), "cron", LEASE, monotonic=time) for _ in range(2))
    first.beat()
    second.beat()
    second.resign()
    assert first.leads
    first.resign()
    second.beat()

    assert (first.leads, second.leads) == (False, True)


def test_elections_are_apart(seats: Seats) -> None:
    """Each name has a leader of its own."""
    first, second = Leader(seats("one"), "one", LEASE), Leader(seats("two"), "two", LEASE)
    first.beat()
    second.beat()

    assert first.leads
    assert second.leads


@pytest.mark.parametrize("seed", range(2))
def test_never_two_whatever_happens(seed: int, seats: Seats) -> None:
    """Replicas that stop, freeze, resign and come back at random: never two lead, and one does within two leases."""
    dice = random.Random(seed)
    time = Time()
    replicas = [Leader(seats("cron"), "cron", LEASE, monotonic=time) for _ in range(3)]
    frozen = [0.0] * 3
    without = 0.0
    for _ in range(200):
        time.now += dice.uniform(0.1, LEASE / 4)
        for index, replica in enumerate(replicas):
            if frozen[index] > time.now:
                continue
            if dice.random() < 0.02:
                frozen[index] = time.now + dice.uniform(0.0, 3 * LEASE)
            elif dice.random() < 0.02:
                replica.resign()
            elif dice.random() < 0.02:
                replicas[index] = Leader(seats("cron"), "cron", LEASE, monotonic=time)
            else:
                replica.beat()
            assert sum(each.leads for each in replicas) <= 1
        led = any(each.leads for each in replicas) or sum(until > time.now for until in frozen) > 0
        without = 0.0 if led else without or time.now
        assert not without or time.now - without < 2 * LEASE


def test_elected_returns_when_it_leads(seats: Seats) -> None:
    """Waiting to be elected ends when another resigns; the replica beats by itself meanwhile."""

    async def main() -> None:
        first, second = (Leader(seats("cron"), "cron", 0.4) for _ in range(2))
        beating = [asyncio.create_task(each.run()) for each in (first, second)]
        await await_until(lambda: first.leads or second.leads)
        leader, other = (first, second) if first.leads else (second, first)
        beating.pop(0 if leader is first else 1).cancel()
        await asyncio.to_thread(leader.resign)
        async with asyncio.timeout(10):
            await other.elected()
        assert other.leads
        assert not leader.leads
        for task in beating:
            task.cancel()

    asyncio.run(main())


class Stutter:
    """A seat that is changed, and then says that it may not have been."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.times = 0

    def change(self, decide: Callable[[Held | None], Held | None]) -> None:
        self._seat.change(decide)
        if self.times:
            self.times -= 1
            raise StateError("not confirmed", transient=True)


def test_what_was_not_confirmed(seats: Seats) -> None:
    """Who was elected without being told leads as soon as it can ask; who resigned without being told is replaced."""
    time = Time()
    seat = Stutter(seats("cron"))
    first = Leader(seat, "cron", LEASE, monotonic=time)
    second = Leader(seats("cron"), "cron", LEASE, monotonic=time)
    for _ in range(2):
        seat.times = 1
        with pytest.raises(StateError):
            first.beat()
        second.beat()
        assert not second.leads
        first.beat()
        assert first.leads
    seat.times = 1
    with pytest.raises(StateError):
        first.resign()
    assert not first.leads
    second.beat()
    assert second.leads
