"""Plans are the same for the same seed, have quiet in them, and no two faults that need the same at once."""

from __future__ import annotations

import time

import pytest

import tests.nemesis.catalogue  # noqa: F401 - registers the faults
from tests.nemesis.fault import FAULTS, Fault, register
from tests.nemesis.plan import Period, plan

_ALL = list(FAULTS.values())


def test_the_seed_decides() -> None:
    """The same seed gives the same plan, another one another."""
    assert list(map(repr, plan(1, _ALL, 100))) == list(map(repr, plan(1, _ALL, 100)))
    assert list(map(repr, plan(1, _ALL, 100))) != list(map(repr, plan(2, _ALL, 100)))
    one, same = plan(1, _ALL, 100)[0], plan(1, _ALL, 100)[0]
    assert one.dice("x").random() == same.dice("x").random() != one.dice("y").random()


@pytest.mark.parametrize("seed", range(20))
def test_a_quarter_is_quiet(seed: int) -> None:
    """Of every four periods one is quiet, and together they last as long as was asked for."""
    periods = plan(seed, _ALL, 200.0)
    assert len(periods) == 40
    for start in range(0, 40, 4):
        assert sum(not period.faults for period in periods[start : start + 4]) == 1
    assert sum(period.seconds for period in periods) == pytest.approx(200.0)


def test_what_needs_the_same_does_not_come_together() -> None:
    """Pairs there are, and their needs are apart."""
    pairs = [period.faults for period in plan(0, _ALL, 5000.0) if len(period.faults) == 2]
    assert len(pairs) > 50
    for first, second in pairs:
        assert not FAULTS[first].needs & FAULTS[second].needs


def test_each_fault_has_its_turn() -> None:
    """Before one comes again all others came."""
    dealt = [name for period in plan(4, _ALL, 1000.0) for name in period.faults]
    for start in range(0, 3 * len(_ALL), len(_ALL)):
        assert set(dealt[start : start + len(_ALL)]) == set(FAULTS)


def test_one_period_has_the_fault() -> None:
    """A plan of a single period is not a quiet one, unless there are no faults."""
    assert plan(3, _ALL[:1], 2.0)[0].faults == (_ALL[0].name,)
    assert plan(3, [], 2.0)[0].faults == ()


def test_a_period_ends() -> None:
    """Resting ends with the period, or when it is ended."""
    period = Period([], 0.05, 1)
    period.begin()
    assert not period.over
    assert period.rest(60)
    long = Period([], 60, 1)
    long.begin()
    long.end()
    began = time.monotonic()
    assert long.rest(60)
    assert time.monotonic() - began < 30


def test_names_are_unique() -> None:
    """A second fault of the same name is refused."""

    class Again(Fault):
        name = _ALL[0].name

        def strike(self, cluster: object, period: Period) -> None:
            raise NotImplementedError

    with pytest.raises(ValueError, match="already"):
        register(Again)
