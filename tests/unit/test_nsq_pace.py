"""How many messages nsqd may send at once."""

from __future__ import annotations

import pytest

from bus.nsq.pace import Pace

_ROUND_TRIP = 0.01
_PROMPT, _LATE = 0.005, 0.02


def _pace(most: int = 2500) -> Pace:
    pace = Pace(_ROUND_TRIP, most)
    pace.asked(0.0)
    return pace


def test_little_is_expected_at_first() -> None:
    """One message may come, so that nsqd sends it at once."""
    assert _pace().quota == 1


def test_a_queue_is_emptied_ever_faster_up_to_what_nsqd_permits() -> None:
    """Messages that were there before they were asked for make more welcome."""
    pace, seen = _pace(most=100), list[int]()
    for number in range(1, 6):
        pace.came(number * _PROMPT, all=True)
        seen.append(pace.quota)
    assert seen == [4, 16, 64, 100, 100]


def test_one_that_comes_later_was_sent_later() -> None:
    """Messages that come one after the other, each after a while, stay lone ones."""
    pace = _pace()
    for number in range(1, 10):
        pace.came(number * _LATE, all=True)
        assert pace.quota == 1


def test_an_answer_to_a_result_is_a_lone_one() -> None:
    """A message sent because the one before was settled may come at once, and still nothing else is waiting."""
    pace = _pace()
    for number in range(1, 10):
        pace.rested()
        pace.came(number * _PROMPT, all=True)
        assert pace.quota == 1


def test_while_much_comes_it_need_not_come_at_once() -> None:
    """Once more than one may come, it is enough that all of them did; fewer change nothing."""
    pace = _pace()
    pace.came(_PROMPT, all=True)
    pace.came(2 * _LATE, all=False)
    assert pace.quota == 4
    pace.rested()
    pace.came(4 * _LATE, all=True)
    assert pace.quota == 16


def test_when_nothing_comes_little_is_expected() -> None:
    """After a silence one message may come, and a prompt one begins anew."""
    pace = _pace()
    pace.came(_PROMPT, all=True)
    pace.quiet()
    assert pace.quota == 1
    pace.came(_LATE, all=True)
    assert pace.quota == 1


@pytest.mark.parametrize("round_trip", [0.0001, 0.05])
def test_patience_is_longer_than_an_answer_takes(round_trip: float) -> None:
    """A server far away is not taken for a silent one."""
    assert Pace(round_trip, 1).patience > 2 * round_trip
