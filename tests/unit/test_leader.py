"""Which of several replicas is at work: never two by their own clocks, and always one again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from taskmasters.leader import LEADER, Leader
from taskmasters.store import Store, open_store
from tests.helpers import await_until

LEASE = 6.0


class Time:
    """A monotonic clock that is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(state_url: str) -> Iterator[Store]:
    """An empty database of each kind."""
    store = open_store(state_url, LEADER)
    yield store
    store.close()


def test_the_first_leads_until_it_is_silent(store: Store) -> None:
    """One leads; another takes over a lease after the last beat it saw, when the first knows that it leads no more."""
    time = Time()
    first, second = (Leader(store, "cron", LEASE, monotonic=time) for _ in range(2))
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


def test_who_resigns_is_replaced_at_once(store: Store) -> None:
    """A replica that ends cleanly is not waited for, and one that does not lead takes nothing away."""
    time = Time()
    first, second = (Leader(store, "cron", LEASE, monotonic=time) for _ in range(2))
    first.beat()
    second.beat()
    second.resign()
    assert first.leads
    first.resign()
    second.beat()

    assert (first.leads, second.leads) == (False, True)


def test_elections_are_apart(store: Store) -> None:
    """Each name has a leader of its own."""
    first, second = Leader(store, "one", LEASE), Leader(store, "two", LEASE)
    first.beat()
    second.beat()

    assert first.leads
    assert second.leads


@pytest.mark.parametrize("seed", range(5))
def test_never_two_whatever_happens(seed: int, tmp_path: object) -> None:
    """Replicas that stop, freeze, resign and come back at random: never two lead, and one does within two leases."""
    dice = random.Random(seed)
    store = open_store(f"{tmp_path}/state.db", LEADER)
    time = Time()
    replicas = [Leader(store, "cron", LEASE, monotonic=time) for _ in range(3)]
    frozen = [0.0] * 3
    without = 0.0
    for _ in range(600):
        time.now += dice.uniform(0.1, LEASE / 4)
        for index, replica in enumerate(replicas):
            if frozen[index] > time.now:
                continue
            if dice.random() < 0.02:
                frozen[index] = time.now + dice.uniform(0.0, 3 * LEASE)
            elif dice.random() < 0.02:
                replica.resign()
            elif dice.random() < 0.02:
                replicas[index] = Leader(store, "cron", LEASE, monotonic=time)
            else:
                replica.beat()
            assert sum(each.leads for each in replicas) <= 1
        led = any(each.leads for each in replicas) or sum(until > time.now for until in frozen) > 0
        without = 0.0 if led else without or time.now
        assert not without or time.now - without < 2 * LEASE
    store.close()


def test_elected_returns_when_it_leads(store: Store) -> None:
    """Waiting to be elected ends when another resigns; the replica beats by itself meanwhile."""

    async def main() -> None:
        first, second = Leader(store, "cron", 0.4), Leader(store, "cron", 0.4)
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
