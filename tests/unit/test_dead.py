"""Dead letters keep everything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import Delivery
from task import Task
from task.dead import dead_letter, original, split_dead_letter
from task.times import parse_time


def letter(body: bytes = b"{}", **more: Any) -> dict[str, Any]:
    """The letter for one delivery, read."""
    delivery = Delivery(body, "m1", 3, None, more.pop("history", ()))
    made = dead_letter(delivery, **{"topic": "t", "group": "g", "reason": "because", "code": "not-json", **more})
    return orjson.loads(made)  # type: ignore[no-any-return]


def test_everything_that_is_known() -> None:
    """When, why, from where, how often, which task, and the message."""
    found = letter(b'{"type":"t"}', task=Task("t", id="7"), history=("first", "second"))

    assert abs((parse_time(found.pop("dead")) - datetime.now(UTC)).total_seconds()) < 60
    assert found == {
        "code": "not-json",
        "reason": "because",
        "topic": "t",
        "group": "g",
        "message_id": "m1",
        "attempts": 3,
        "history": ["first", "second"],
        "type": "t",
        "id": "7",
        "body": '{"type":"t"}',
    }


def test_what_is_not_known_is_left_out() -> None:
    """A broadcast has no group, a first delivery no history, nonsense no type."""
    assert letter(group=None).keys() == {"dead", "code", "reason", "topic", "message_id", "attempts", "body"}


@given(st.binary())
def test_the_original_comes_back(body: bytes) -> None:
    """Text, or not, byte for byte."""
    assert original(letter(body)) == body


@given(st.binary(max_size=20_000), st.integers(200, 20_000))
def test_the_parts_together_are_the_original(body: bytes, limit: int) -> None:
    """Numbered, complete and in order."""
    made = split_dead_letter(
        Delivery(body, "m"), topic="t", group="g", reason="r", code="too-large", task=None, limit=limit
    )
    letters = [orjson.loads(each) for each in made]

    assert letters
    assert b"".join(original(each) for each in letters) == body
    assert [(each["part"], each["parts"]) for each in letters] == [(n + 1, len(letters)) for n in range(len(letters))]


@pytest.mark.parametrize("limit", [4096, 65536, 1024 * 1024])
def test_every_part_fits(limit: int) -> None:
    """However long the reason, the history, the type and the id are."""
    delivery = Delivery(b"\xff" * 3_000_000, "m" * 100, 3, None, ("h" * 1000,) * 50)
    task = Task("t" * limit, id="i" * limit)
    letters = split_dead_letter(
        delivery, topic="t" * 64, group="g" * 64, reason="r" * limit, code="too-large", task=task, limit=limit
    )

    assert max(map(len, letters)) <= limit


def test_long_reasons_are_cut() -> None:
    """A reason or an entry of the history is for people: 1000 characters, whatever they hold."""
    found = letter(reason="r" * 5000, history=("h" * 5000, "\ud800"))

    assert (len(found["reason"]), len(found["history"][0]), found["history"][1]) == (1000, 1000, "?")


@pytest.mark.parametrize("wrong", [{}, {"body": 5}, {"body_base64": None}, {"body_base64": "%%%"}])
def test_what_is_no_letter_has_no_original(wrong: dict[str, Any]) -> None:
    """A task that is no dead letter, or a damaged one, is told so."""
    with pytest.raises(ValueError, match=r"dead letter|base64"):
        original(wrong)
