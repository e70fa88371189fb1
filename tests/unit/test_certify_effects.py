"""What differs between two states is named by its kind, and narrowed down to the fewest tasks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from apps.certify.effects import Kind, Noise, compare_outcomes, compare_states
from apps.certify.errors import OutOfRunsError
from apps.certify.narrow import narrow
from apps.certify.run import Outcome
from apps.certify.state import State, item


def state(**contents: str | bytes) -> State:
    return {name: item(text if isinstance(text, bytes) else text.encode()) for name, text in contents.items()}


@pytest.mark.parametrize(
    ("before", "after", "killed", "kind"),
    [
        ("one\ntwo\n", "one\ntwo\none\n", False, Kind.APPENDED),
        ("one\n", "one\none\n", True, Kind.APPENDED),
        ("hits 1\n", "hits 2\n", False, Kind.COUNTED),
        ('["a", 1, 0.5]\n["b", 2, 7]\n', '["a", 2, 0.5]\n["b", 4, 7]\n', False, Kind.COUNTED),
        ("hits 2\n", "hits 1\n", False, Kind.CHANGED),
        ("hits 1\n", "misses 2\n", False, Kind.CHANGED),
        ("one\ntwo\n", "two\none\n", False, Kind.ORDER),
        ("one\ntwo\n", "one\ntw", True, Kind.HALF),
        ("one\ntwo\n", "", True, Kind.HALF),
        ("one\ntwo\n", "two\n", True, Kind.LOST),
        ("one\n", "other\n", False, Kind.CHANGED),
        (b"\xff\xfe\xfd", b"\xff", True, Kind.HALF),
        (b"\xff\xfe\xfd", b"\xff", False, Kind.CHANGED),
        (b"\xff", b"\xff\xfe", True, Kind.CHANGED),
    ],
)
def test_a_content_that_differs_has_a_kind(before: str | bytes, after: str | bytes, killed: bool, kind: Kind) -> None:
    """How a content changed tells what the worker did to it."""
    (effect,) = compare_states(state(file=before), state(file=after), killed=killed)

    assert (effect.kind, effect.where) == (kind, "file")
    assert effect.detail


def test_names_that_come_and_go() -> None:
    """What is missing, what is more, and what a kill left behind."""
    assert [effect.kind for effect in compare_states(state(a="", b=""), state(a=""))] == [Kind.LOST]
    assert [effect.kind for effect in compare_states(state(a=""), state(a="", b=""))] == [Kind.EXTRA]
    assert [effect.kind for effect in compare_states(state(a=""), state(a="", b=""), killed=True)] == [Kind.LEFT]


def test_the_same_is_no_effect() -> None:
    """Equal states and outcomes have no difference."""
    done = Outcome("complete", "", ())
    assert compare_states(state(a="x"), state(a="x")) == []
    assert compare_outcomes({0: done}, {0: done}) == {}


def test_what_differs_by_itself_is_counted_not_compared() -> None:
    """Names that differ from run to run are an effect only if there are more of them; noisy contents are left out."""
    noise = Noise({"steady", "noisy"}, {"noisy"}, {1}, differs=True)
    before = state(steady="x", noisy="1", r1="")
    more = state(steady="x", noisy="2", r2="", r3="")

    assert compare_states(before, state(steady="x", noisy="2", r2=""), noise) == []
    assert [each.kind for each in compare_states(before, more, noise)] == [Kind.NAME]
    assert [each.kind for each in compare_states(before, state(steady="y", noisy="2", r2=""), noise)] == [Kind.CHANGED]
    left = compare_states(before, more, noise, killed=True)
    assert [each.kind for each in left] == [Kind.LEFT]


def test_outcomes_that_differ_are_told() -> None:
    """Result, message and meta count, but not of a task whose outcome differs by itself."""
    was = Outcome("complete", "5 rows", ())
    now = Outcome("error", "it exists", ())
    tagged = Outcome("complete", "5 rows", (("key", "value"),))
    noise = Noise(set(), set(), {0}, differs=False)

    assert compare_outcomes({0: was}, {0: now}) == {0: "complete (5 rows) became error (it exists)"}
    assert "key" in compare_outcomes({0: was}, {0: tagged})[0]
    assert compare_outcomes({0: was}, {0: now}, noise) == {}


@pytest.mark.parametrize(("culprits", "least"), [({5}, 1), ({0}, 1), ({2, 7}, 2), ({0, 1, 9}, 2), (set(range(10)), 2)])
def test_it_narrows_down_to_the_culprits(culprits: set[int], least: int) -> None:
    """The fewest things with which it happens are found, in order, in a bounded number of tries."""
    tries: list[Sequence[int]] = []

    def happens(part: Sequence[int]) -> bool:
        tries.append(part)
        assert len(part) >= least
        return culprits <= set(part)

    assert narrow(range(10), happens, least) == sorted(culprits)
    assert len(tries) < 70


def test_out_of_runs_it_tells_what_it_has() -> None:
    """When no more runs are allowed, the smallest part found until then is told."""

    def happens(part: Sequence[int]) -> bool:
        if len(part) < 5:
            raise OutOfRunsError("enough")
        return 9 in part

    assert narrow(range(10), happens) == [5, 6, 7, 8, 9]
