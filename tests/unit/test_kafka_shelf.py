"""What was read ahead: the order in which it is given out, and what is not due yet."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("confluent_kafka")

from bus.kafka.copies import Origin
from bus.kafka.partition import Entry, Partition, State
from bus.kafka.progress import WINDOW, Progress
from bus.kafka.shelf import Shelf


def _part(base: int = 0) -> Partition:
    return Partition("retry", 0, Progress(base), retry=True)


def _entry(part: Partition, offset: int, due: float = 0.0) -> Entry:
    part.progress.see(offset)
    return Entry(part, offset, offset, b"12345", None, Origin(str(offset), 1, due))


def _offsets(shelf: Shelf) -> list[int]:
    return [entry.offset for entry in shelf.take(100)]


def test_what_was_put_back_comes_first_in_its_order() -> None:
    """Messages handed back unbegun come before those not yet given out, oldest first."""
    shelf, part = Shelf(), _part()
    first, second, third = (_entry(part, offset) for offset in range(3))
    shelf.add([third])
    shelf.put_back(second)
    shelf.put_back(first)
    assert (len(shelf), shelf.ready_bytes) == (3, 15)
    assert [entry.offset for entry in shelf.take(2)] == [0, 1]
    assert _offsets(shelf) == [2]
    assert (len(shelf), shelf.ready_bytes) == (0, 0)


def test_short_delays_pass_long_ones() -> None:
    """Whatever order they were written in, those due come, and the next is known."""
    shelf, part, now = Shelf(), _part(), time.time()
    for offset, due in enumerate((now + 3600, now - 1, now + 1800, now - 2)):
        shelf.delay(_entry(part, offset, due), due)
    shelf.promote()
    assert _offsets(shelf) == [3, 1]
    assert 1700 < shelf.until_due() <= 1800
    assert shelf.delayed_bytes == 10
    assert sorted(part.delayed) == [0, 2]


def test_nothing_of_a_partition_that_moves_is_given_out() -> None:
    """A withdrawn partition leaves nothing behind, and a lost one yields nothing."""
    shelf, going, staying, lost = Shelf(), _part(), _part(), _part()
    for part in (going, staying, lost):
        shelf.add([_entry(part, 0)])
        shelf.put_back(_entry(part, 1))
        shelf.delay(_entry(part, 2), time.time() + 60)
    shelf.withdraw([going])
    lost.lost = True
    assert (shelf.ready_bytes, shelf.delayed_bytes) == (20, 10)
    assert _offsets(shelf) == [1, 0]
    assert shelf.ready_bytes == 0


def test_a_long_delay_does_not_hold_the_group_back_for_ever() -> None:
    """Delayed messages in the way of half a window of others, or a day old, are to be written anew; no others."""
    shelf, part, due = Shelf(), _part(), time.time() + 3600
    oldest = _entry(part, 0, due)
    oldest.written = time.time()
    shelf.delay(oldest, due)
    assert part.in_the_way() == []
    for offset in range(1, WINDOW // 2 + 1):
        part.progress.see(offset)
        part.progress.settle([offset])
    assert part.in_the_way() == [oldest]

    aged = _part()
    entry = _entry(aged, 0, due)
    entry.written = time.time() - 2 * 86_400
    shelf.delay(entry, due)
    assert aged.in_the_way() == [entry]
    entry.state = State.READY
    running = _part()
    _entry(running, 0)
    behind = _entry(running, 1, due)
    shelf.delay(behind, due)
    assert running.in_the_way() == []
