"""How long to wait before a task is tried again."""

from __future__ import annotations

import dataclasses
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task.retry import Backoff


@pytest.mark.parametrize(
    ("kind", "delays"),
    [
        ("exponential", [2, 4, 8, 16, 32, 60, 60]),
        ("fibonacci", [2, 2, 4, 6, 10, 16, 26, 42, 60, 60]),
        ("linear", [2, 4, 6, 8, 10, *range(12, 60, 2), 60, 60]),
        ("fixed", [2, 2, 2]),
    ],
)
def test_growth(kind: str, delays: list[float]) -> None:
    """Delays grow as the kind says, up to the longest."""
    backoff = Backoff(kind, 2.0, 60.0, jitter=False)

    assert [backoff.delay(attempt) for attempt in range(1, len(delays) + 1)] == delays


def test_jitter() -> None:
    """An exponential delay is half fixed and half random, spread over all of that half."""
    backoff = Backoff("exponential", 8.0, 60.0, rng=Random(1))

    delays = [backoff.delay(2) for _ in range(1000)]

    assert 8 <= min(delays) < 8.5
    assert 15.5 < max(delays) <= 16
    assert 11.5 < sum(delays) / len(delays) < 12.5


def test_jitter_is_the_generators() -> None:
    """The same random generator gives the same delays."""
    first, second = (Backoff(rng=Random(7)) for _ in range(2))

    assert [first.delay(n) for n in range(1, 9)] == [second.delay(n) for n in range(1, 9)]


@pytest.mark.parametrize("kind", ["fibonacci", "fixed"])
def test_no_jitter_elsewhere(kind: str) -> None:
    """Fibonacci and fixed delays are exact."""
    assert Backoff(kind, 3.0).delay(2) == 3.0


@given(
    st.builds(
        Backoff,
        st.sampled_from(["exponential", "fibonacci", "fixed"]),
        st.floats(0, 1e308),
        st.floats(0, 1e308),
        st.booleans(),
    ),
    st.integers(1, 10**6) | st.just(10**6),
)
def test_bounds(backoff: Backoff, attempt: int) -> None:
    """Any delay of any attempt is finite, not negative and not above the longest."""
    delay = backoff.delay(attempt)

    assert math.isfinite(delay)
    assert 0 <= delay <= backoff.max_delay


@pytest.mark.parametrize("kind", ["exponential", "fibonacci", "fixed"])
@pytest.mark.parametrize("first", [0.0, 1e-300, 1.0, 1e308])
def test_millionth_attempt(kind: str, first: float) -> None:
    """The millionth attempt overflows nothing; nothing grows from zero."""
    delay = Backoff(kind, first, 900.0, jitter=False).delay(10**6)

    assert delay == (min(first, 900.0) if kind == "fixed" or not first else 900.0)


@pytest.mark.parametrize("kind", ["exponential", "fibonacci"])
def test_grows_with_the_attempts(kind: str) -> None:
    """No delay is shorter than the one before it."""
    backoff = Backoff(kind, 0.1, 1e6, jitter=False)
    delays = [backoff.delay(attempt) for attempt in range(1, 60)]

    assert delays == sorted(delays)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "cubic"}, "'cubic' is none of exponential, fibonacci, linear, fixed"),
        ({"first": -1.0}, "first must be seconds"),
        ({"first": math.inf}, "first must be seconds"),
        ({"max_delay": math.nan}, "max_delay must be seconds"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], told: str) -> None:
    """A kind or number that makes no sense is refused at once."""
    with pytest.raises(ValueError, match=told):
        Backoff(**fields)


def test_is_a_value() -> None:
    """Backoffs are frozen, and equal when they say the same."""
    assert Backoff() == Backoff()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Backoff().first = 5.0  # type: ignore[misc]
