"""How deliveries are settled, by what came of their tasks."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bus import Delivery
from task import Outcome, alert, complete, decode, error, reject, retry_later, warn
from task.assignment import Assignment
from task.context import Context
from task.dead import original
from task.errors import DecodeError
from task.retry import Backoff
from task.verdict import Action, Judge, Verdict

BODY = b'{"type":"t","task":"v","id":"7"}'
TASK = decode(BODY)


def judge(**more: Any) -> Judge:
    """The rules of an application; retries wait 1, 1, 1 …"""
    rules: dict[str, Any] = {
        "topic": "t", "group": "g", "done_topic": "done", "dead_topic": "t.dead", "retries": 0,
        "backoff": Backoff("fixed", 1.0), "max_attempts": 20,
    }  # fmt: skip
    return Judge(**{**rules, **more})


def ended(outcome: Outcome | None, attempt: int = 1, *, crashed: bool = False) -> Assignment:
    """An attempt that came to an end, or to none."""
    made = Assignment(Delivery(BODY, "m1", attempt), TASK, Context(TASK, attempt))
    made.outcome, made.crashed, made.reason = outcome, crashed, "" if outcome else "why not"
    made.started, made.completed = "2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"
    return made


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    """Of each message the topic, and the result or code."""
    found = []
    for message in verdict.messages:
        data = orjson.loads(message.body)
        found.append((message.topic, data.get("code") or data["result"]))
    return found


@pytest.mark.parametrize("outcome", [complete("m"), error("m"), alert("m"), warn("m")])
@pytest.mark.parametrize("attempt", [1, 20, 21])
def test_an_outcome_ends_the_task(outcome: Outcome, attempt: int) -> None:
    """One done task with the outcome and its times, at whatever attempt."""
    verdict = judge().ended(ended(outcome, attempt))

    assert (verdict.action, verdict.result) == (Action.FINISH, outcome.result.value)
    (message,) = verdict.messages
    assert message.topic == "done"
    assert orjson.loads(message.body) == orjson.loads(BODY) | {
        "result": outcome.result, "msg": "m", "started": "2024-01-01T00:00:00Z", "completed": "2024-01-01T00:00:01Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attempt", "action", "messages"),
    [
        (1, Action.NACK, []),
        (2, Action.NACK, []),
        (3, Action.FINISH, [("t.dead", "retries-exhausted"), ("done", "error")]),
        (9, Action.FINISH, [("t.dead", "retries-exhausted"), ("done", "error")]),
    ],
)
def test_retries(attempt: int, action: Action, messages: list[tuple[str, str]]) -> None:
    """An error is tried again as often as asked for, after the backoff, and then told twice."""
    verdict = judge(retries=2).ended(ended(error("no"), attempt))

    assert (verdict.action, kinds(verdict)) == (action, messages)
    assert verdict.reason == "no"
    if action is Action.NACK:
        assert (verdict.delay, verdict.result) == (1.0, "retried")


@pytest.mark.parametrize("outcome", [complete(), alert("m"), warn("m")])
def test_only_errors_are_retried(outcome: Outcome) -> None:
    """alert and warn are final, however many retries there are."""
    verdict = judge(retries=5).ended(ended(outcome))

    assert (verdict.action, kinds(verdict)) == (Action.FINISH, [("done", outcome.result.value)])


@pytest.mark.parametrize("retries", [0, 5])
def test_rejected(retries: int) -> None:
    """Dead-lettered and done with error at once, with the reason in both."""
    verdict = judge(retries=retries).ended(ended(reject("no such table")))

    assert (verdict.action, verdict.result) == (Action.FINISH, "dead")
    assert kinds(verdict) == [("t.dead", "rejected"), ("done", "error")]
    assert [
        orjson.loads(message.body)[key] for message, key in zip(verdict.messages, ("reason", "msg"), strict=True)
    ] == ["no such table"] * 2


def test_retry_later() -> None:
    """After the delay it asks for, until max_attempts; then dead-lettered and done with error."""
    again = judge(max_attempts=3).ended(ended(retry_later(7, "no file"), 2))
    last = judge(max_attempts=3).ended(ended(retry_later(7, "no file"), 3))

    assert (again.action, again.delay, again.reason, again.messages) == (Action.NACK, 7, "no file", ())
    assert kinds(last) == [("t.dead", "retries-exhausted"), ("done", "error")]


def test_interrupted() -> None:
    """What a shutdown cut short is handed back; the attempt does not count, so no limit is looked at."""
    verdict = judge(max_attempts=1).ended(ended(None, 5))

    assert (verdict.action, verdict.result, verdict.messages) == (Action.RELEASE, "released", ())


def test_crashed() -> None:
    """After a crash it is tried again, with the reason, and at the last attempt dead-lettered, not answered."""
    again = judge(max_attempts=2).ended(ended(None, 1, crashed=True))
    last = judge(max_attempts=2).ended(ended(None, 2, crashed=True))

    assert (again.action, again.delay, again.reason) == (Action.NACK, 1.0, "why not")
    assert kinds(last) == [("t.dead", "crashed")]
    assert orjson.loads(last.messages[0].body)["reason"] == "why not; attempt 2 of at most 2"


def test_no_done_topic() -> None:
    """Dead letters are written all the same."""
    rules = judge(done_topic=None)

    assert rules.ended(ended(complete())).messages == ()
    assert kinds(rules.ended(ended(reject("no")))) == [("t.dead", "rejected")]
    assert rules.refused(ended(None).delivery, TASK, "no").messages == ()


def test_what_was_not_run() -> None:
    """A dead letter, an answer, or nothing: each settles the message."""
    delivery = Delivery(b"\xff", "m1")
    dead = judge().undecodable(delivery, DecodeError("not-json", "not JSON: at 1"))
    refused = judge().refused(delivery, TASK, "wrong type")
    ignored = judge().ignored(delivery)

    assert (kinds(dead), original(orjson.loads(dead.messages[0].body))) == ([("t.dead", "not-json")], b"\xff")
    assert kinds(refused) == [("done", "error")]
    assert orjson.loads(refused.messages[0].body)["msg"] == "wrong type"
    assert (ignored.action, ignored.messages) == (Action.FINISH, ())
    assert {dead.action, refused.action} == {Action.FINISH}


@pytest.mark.parametrize(
    ("assignment", "messages"),
    [
        (ended(retry_later(1)), [("t.dead", "retries-exhausted"), ("done", "error")]),
        (ended(error("no")), [("done", "error")]),
        (ended(None), [("t.dead", "interrupted")]),
        (ended(None, crashed=True), [("t.dead", "crashed")]),
    ],
)
def test_nothing_comes_again_that_was_acknowledged_on_receipt(
    assignment: Assignment, messages: list[tuple[str, str]]
) -> None:
    """With at_most_once every end is final, and none is silent."""
    verdict = judge(at_most_once=True, retries=5).ended(assignment)

    assert (verdict.action, kinds(verdict)) == (Action.FINISH, messages)


def test_identities_of_what_is_published() -> None:
    """Where the bus drops repeats: the same at every attempt, another for another message, consumer and kind."""

    def identities(rules: Judge, attempt: int = 1, id: str = "m1") -> list[str | None]:
        made = ended(reject("no"), attempt)
        made.delivery.id = id
        return [message.id for message in rules.ended(made).messages]

    rules = judge(identity="here")
    assert identities(rules) == identities(rules, 2)
    found = identities(rules) + identities(rules, 1, "m2") + identities(judge(identity="there"))
    assert None not in found
    assert len(set(found)) == 6
    assert identities(judge()) == [None, None]
