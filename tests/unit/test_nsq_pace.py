"""How many messages nsqd may send at once."""

from __future__ import annotations

import pytest

from bus.nsq.pace import Pace


def _pace(most: int = 2500) -> Pace:
    return Pace(0.01, most)


def _wide() -> Pace:
    pace = _pace()
    for _ in range(4):
        pace.came(1, 0)
    assert pace.quota > 1
    return pace


def test_little_is_expected_at_first() -> None:
    """One message may come, so that nsqd sends it at once."""
    assert _pace().quota == 1


def test_a_queue_is_emptied_ever_faster_up_to_what_nsqd_permits() -> None:
    """A few messages in a row make more welcome, and from then on whenever all that may come does."""
    pace, seen = _pace(most=100), list[int]()
    for _ in range(8):
        pace.came(pace.quota, 0)
        seen.append(pace.quota)
    assert seen == [1, 1, 1, 4, 16, 64, 100, 100]


def test_an_answer_to_a_result_is_a_lone_one() -> None:
    """Messages that may each have been sent because the one before was settled stay lone ones, however many."""
    pace = _pace()
    for _ in range(50):
        pace.rested()
        pace.came(1, 0)
        assert pace.quota == 1


def test_fewer_than_may_come_change_nothing() -> None:
    """A part of what is permitted makes neither more nor less welcome; a settlement makes no difference then."""
    pace = _wide()
    before = pace.quota
    pace.came(before - 1, 1)
    assert pace.quota == before
    pace.rested()
    pace.came(1, 0)
    assert pace.quota > before


def test_after_a_silence_little_is_expected() -> None:
    """Then one message may come, and it takes a row of them again."""
    pace = _wide()
    pace.quiet()
    seen = list[int]()
    for _ in range(4):
        seen.append(pace.quota)
        pace.came(1, 0)
    assert seen == [1, 1, 1, 1]
    assert pace.quota > 1


def test_what_comes_after_a_silence_that_was_none_is_much() -> None:
    """Where an answer takes longer than there is patience, what was under way meanwhile shows that there is more."""
    pace = _wide()
    pace.quiet()
    pace.came(10, -9)
    assert pace.quota == 40


@pytest.mark.parametrize("round_trip", [0.0001, 0.05])
def test_patience_is_longer_than_an_answer_takes(round_trip: float) -> None:
    """A server far away is not taken for a silent one."""
    assert Pace(round_trip, 1).patience > 2 * round_trip
