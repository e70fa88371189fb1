"""How far a group has come: out-of-order settlement, counts of deliveries, and the text that keeps both."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("confluent_kafka")

from bus.kafka.progress import LIMIT, WINDOW, Progress, decode


def _seen(progress: Progress, *offsets: int) -> list[int]:
    return [offset for offset in offsets if progress.see(offset)]


def test_a_gap_holds_the_offset_back() -> None:
    """What is settled behind an unsettled message does not move the offset, but is remembered."""
    progress = Progress(10)
    assert _seen(progress, *range(10, 15)) == [10, 11, 12, 13, 14]
    for offset in (10, 11, 13):
        progress.settle([offset])
    base, text = progress.encode()
    assert base == 12
    assert list(decode(text)) == [0, 15]
    assert _seen(Progress(base, text), 12, 13, 14) == [12, 14]


def test_all_settled_leaves_no_text() -> None:
    """With nothing unsettled the offset says it all."""
    progress = Progress(0)
    _seen(progress, 0, 1, 2)
    for offset in (2, 0, 1):
        progress.settle([offset])
    assert progress.encode() == (3, "")


def test_deliveries_are_counted_over_a_crash() -> None:
    """The next consumer counts on from what was committed; what was handed back unbegun is not counted."""
    progress = Progress(0)
    _seen(progress, 0, 1, 2)
    assert progress.deliver([0, 1]) == [1, 1]
    progress.take_back(1)
    after = Progress(*progress.encode())
    _seen(after, 0, 1, 2)
    assert after.deliver([0, 1, 2]) == [2, 1, 1]


def test_missing_offsets_are_passed() -> None:
    """Offsets that are no messages (marks of transactions, deleted ones) do not hold the group back."""
    progress = Progress(5)
    _seen(progress, 5, 9)
    progress.settle([5])
    progress.settle([9])
    progress.skip(12)
    assert progress.encode() == (12, "")


def test_without_a_committed_offset_it_begins_at_the_first_message() -> None:
    """A new group on an old topic starts where the log starts."""
    progress = Progress()
    assert _seen(progress, 1000, 1001) == [1000, 1001]
    progress.settle([1000])
    assert progress.oldest == 1001


def test_a_topic_made_anew_begins_anew() -> None:
    """An offset before those already seen means other messages: nothing known applies to them."""
    progress = Progress(100)
    _seen(progress, 100, 101)
    progress.settle([101])
    assert _seen(progress, 0, 1) == [0, 1]
    assert progress.oldest == 0
    progress.settle([101])
    progress.take_back(101)
    assert progress.deliver([101]) == [1]
    assert progress.encode() == (0, "")


def test_more_deliveries_than_the_text_can_count_settle_nothing() -> None:
    """The count stands still at its end, before the mark of what is settled."""
    progress = Progress(0)
    _seen(progress, 0)
    for _ in range(40):
        progress.deliver([0])
    assert list(decode(progress.encode()[1])) == [14]
    assert _seen(Progress(*progress.encode()), 0) == [0]


@pytest.mark.parametrize("text", ["", "x", "1", "1!!!", "1AAAA", "2eJwDAAAAAAE=", "someone else's", "1ü"])
def test_a_text_not_ours_says_nothing(text: str) -> None:
    """What another program wrote beside an offset is ignored."""
    assert decode(text) == b""
    assert _seen(Progress(0, text), 0) == [0]


def test_the_text_never_outgrows_its_limit() -> None:
    """However the window looks the text fits; what it cannot hold may come again and nothing is lost."""
    dice = random.Random(5)
    for often in (0.02, 0.5, 0.98):
        progress = Progress(0)
        _seen(progress, *range(WINDOW))
        unsettled = {0}
        for offset in range(1, WINDOW):
            for _ in range(dice.randrange(3)):
                progress.deliver([offset])
            if dice.random() < often:
                progress.settle([offset])
            else:
                unsettled.add(offset)
        base, text = progress.encode()
        assert base == 0
        assert len(text) <= LIMIT
        left = set(_seen(Progress(base, text), *range(WINDOW)))
        assert unsettled <= left


def test_random_histories_agree_with_a_set() -> None:
    """Whatever is settled in whatever order, a restart at any moment leaves exactly the unsettled."""
    dice = random.Random(7)
    for _ in range(50):
        progress, pending, following = Progress(0), set[int](), 0
        for _ in range(200):
            if dice.random() < 0.5:
                assert progress.see(following)
                pending.add(following)
                following += 1
            elif pending:
                done = dice.choice(sorted(pending))
                pending.remove(done)
                progress.settle([done])
            if dice.random() < 0.05:
                base, text = progress.encode()
                assert base == min(pending, default=following)
                progress = Progress(base, text)
                assert set(_seen(progress, *range(base, following))) == pending
