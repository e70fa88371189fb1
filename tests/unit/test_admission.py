"""The checks before a task is begun."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from bus import Delivery
from task.admission import Admission
from task.assignment import Assignment
from task.options import WorkerOptions
from task.times import format_time
from task.verdict import Action, Verdict
from tests.unit.test_verdict import judge


def admit(
    body: bytes, *, attempt: int = 1, id: str = "m1", max_attempts: int = 20, **options: Any
) -> Assignment | Verdict:
    """What is said of one delivery."""
    rules = judge(max_attempts=max_attempts)
    return Admission("t", WorkerOptions(**options), rules).admit(Delivery(body, id, attempt))


def refused(body: bytes, **more: Any) -> Verdict:
    found = admit(body, **more)
    assert isinstance(found, Verdict)
    return found


def admitted(body: bytes, **more: Any) -> Assignment:
    found = admit(body, **more)
    assert isinstance(found, Assignment)
    return found


def meta(**times: str) -> bytes:
    return orjson.dumps({"type": "t", "meta": times})


def moment(seconds: float) -> str:
    return format_time(datetime.now(UTC) + timedelta(seconds=seconds))


def test_a_task_of_ours() -> None:
    """It gets a context with its attempt and time limit."""
    assignment = admitted(b'{"type":"t","task":"v","id":"7"}', attempt=3, timeout=5.0)

    assert (assignment.task.id, assignment.task.value) == ("7", "v")
    assert (assignment.context.attempt, assignment.context.remaining) == (3, 5.0)


def test_a_task_without_an_id_gets_one_that_a_redelivery_has_too() -> None:
    """It follows from the message; another message with the same body gets another."""
    body = b'{"type":"t"}'
    first, again, other = (admitted(body, id=id, attempt=n).task.id for id, n in (("m1", 1), ("m1", 2), ("m2", 1)))

    assert first == again
    assert first != other
    assert first


def test_undecodable() -> None:
    """The codec's code is the letter's."""
    assert refused(b"x").code == "not-json"
    assert refused(b'{"type":"t"}', max_task_size=5).code == "too-large"


@pytest.mark.parametrize(
    ("policy", "action", "code", "messages"),
    [
        ("dead-letter", Action.FINISH, "wrong-type", 1),
        ("reject", Action.FINISH, "", 1),
        ("ignore", Action.FINISH, "", 0),
    ],
)
def test_wrong_type(policy: str, action: Action, code: str, messages: int) -> None:
    """A letter, an answer, or nothing."""
    verdict = refused(b'{"type":"T"}', wrong_type=policy)

    assert (verdict.action, verdict.code, len(verdict.messages)) == (action, code, messages)


def test_too_many_attempts() -> None:
    """At max_attempts it is still tried; after it, dead-lettered with the reason and not begun."""
    assert isinstance(admit(b'{"type":"t"}', attempt=3, max_attempts=3), Assignment)
    verdict = refused(b'{"type":"t"}', attempt=4, max_attempts=3)

    assert verdict.code == "too-many-attempts"
    assert "delivered 4 times" in str(verdict.reason)


def test_retries_beyond_max_attempts_are_not_cut() -> None:
    """The limit is that of the judge, who knows how many retries were asked for."""
    assert isinstance(admit(b'{"type":"t"}', attempt=30, max_attempts=51), Assignment)


def test_expired() -> None:
    """A task whose time is over is dead-lettered; one whose time is to come is not."""
    verdict = refused(meta(expires=moment(-1)))

    assert verdict.code == "expired"
    assert isinstance(admit(meta(expires=moment(60))), Assignment)


def test_not_before() -> None:
    """Handed back until then; the past keeps nobody."""
    verdict = refused(meta(not_before=moment(60)))

    assert (verdict.action, verdict.messages) == (Action.RELEASE, ())
    assert 55 < verdict.delay <= 60
    assert isinstance(admit(meta(not_before=moment(-60))), Assignment)


def test_expired_while_it_waits() -> None:
    """What has expired is not kept until a time that comes later."""
    assert refused(meta(expires=moment(-1), not_before=moment(60))).code == "expired"


@pytest.mark.parametrize("key", ["expires", "not_before"])
@pytest.mark.parametrize("text", ["", "soon", "2024-02-30T00:00:00Z", "0001-01-01T00:00:00+23:00", "9" * 100])
def test_bad_times(key: str, text: str) -> None:
    """What is no time is dead-lettered and named."""
    verdict = refused(meta(**{key: text}))

    assert verdict.code == "bad-time"
    assert repr(key) in str(verdict.reason)
