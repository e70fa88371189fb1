"""What the retry taskmaster decides, on a virtual clock: counts, delays, ends, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.redrive.letters import read_letter
from bus import Delivery
from task import Dialect, Task, decode, encode
from task.dead import original
from task.outcome import Result
from taskmasters.retry import records
from taskmasters.retry.engine import RetryEngine
from taskmasters.retry.records import RECORDS, Record
from taskmasters.retry.rules import load_retry_rules
from taskmasters.store import Arrival, Outgoing, Store, open_store, outbox
from taskmasters.store.outbox import OUTBOX

RULES = """
[[rule]]
id = "short"
match = { type = "short" }
retries = 10
delay = "10m"
backoff = "fixed"
within = "25m"

[[rule]]
match = { type = "never" }
retries = 0

[[rule]]
match = { type = "elsewhere" }
retries = 1
topic = "other"
dead_topic = "graves"

[[rule]]
match = { type = "warned", result = ["warn", "error"] }
retries = 1

[[rule]]
id = "all"
match = {}
retries = 3
delay = "1m"
jitter = 0
"""
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = NOON.timestamp()


def failed(kind: str = "t", id: str | None = "i", result: str = "error", msg: str = "broke", **more: Any) -> Task:
    """A done task."""
    task = Task(kind, "v", id="x", job=more.pop("job", "j"), meta=more.pop("meta", {}), created=NOON, **more)
    return task.replace(id=id, result=result, msg=msg, started=NOON, completed=NOON + timedelta(seconds=1))


class Desk:
    """An engine with its store, and a worker's end of it."""

    def __init__(self, store: Store, rules: Path, **options: Any) -> None:
        self.store = store
        self.rules = rules
        self.engine = self.new(**options)
        self.now = NOW

    def new(self, **options: Any) -> RetryEngine:
        return RetryEngine(
            load_retry_rules(str(self.rules)), **{"failed_topic": "retry-failed", "keep": 86400.0, **options}
        )

    def restart(self) -> None:
        """Forget all that is not in the store."""
        self.engine = self.new()

    def tell(self, *tasks: Task) -> list[str]:
        """The fates of these done tasks."""
        arrivals = [Arrival(task, task.id or "derived") for task in tasks]
        fates = self.store.call(lambda tx: self.engine.apply(tx, arrivals, self.now))
        return [fate.code or fate.name for fate in fates]

    def waiting(self) -> list[tuple[str, float, Outgoing]]:
        """Topic, seconds from now and message of all that is to be sent, in this order."""
        found = self.store.call(lambda tx: outbox.due(tx, 1e15, 1000))
        return [(one.message.topic, round(one.message.due - self.now, 6), one.message) for one in found]

    def send(self) -> list[tuple[str, bytes]]:
        """Go on to the moment something is due and take everything that is: topics and bodies."""
        wake = self.store.call(outbox.wake)
        assert wake is not None, "nothing waits"
        self.now = max(self.now, wake)
        found = self.store.call(lambda tx: outbox.due(tx, self.now, 1000))
        self.store.call(lambda tx: outbox.sent(tx, found, self.now))
        return [(one.message.topic, one.message.body) for one in found]

    def retried(self) -> Task:
        """The one task that is due next."""
        ((_, body),) = self.send()
        return decode(body)

    def fails(self, task: Task, result: str = "error", msg: str = "broke") -> Task:
        """The done task of a task."""
        when = datetime.fromtimestamp(self.now, UTC)
        return task.replace(result=result, msg=msg, started=when, completed=when + timedelta(seconds=1))


@pytest.fixture
def store(state_url: str) -> Iterator[Store]:
    """An open store, of each kind of database."""
    opened = open_store(state_url, OUTBOX, RECORDS)
    yield opened
    opened.close()


@pytest.fixture
def desk(store: Store, tmp_path: Path) -> Desk:
    """An engine with RULES."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return Desk(store, path)


def test_a_retry_is_the_same_task(desk: Desk) -> None:
    """Type, value, id, job, created, meta and unknown keys are kept; what it ended with is gone."""
    done = failed(meta={"a": "b"}, extra={"more": [1]})
    assert desk.tell(done) == ["retried"]
    ((topic, delay, message),) = desk.waiting()
    assert (topic, delay) == ("t", 60)
    sent = json.loads(message.body)
    assert sent == {
        "type": "t",
        "task": "v",
        "job": "j",
        "created": "2026-01-31T12:00:00.000Z",
        "id": "i",
        "meta": {"a": "b", "retry": "1"},
        "more": [1],
    }


def test_to_the_end(desk: Desk) -> None:
    """Retried as often as the rule says, each after its delay; then a dead letter with all attempts, and an event."""
    task = failed().replace(result=None, msg=None, started=None, completed=None)
    for number, delay in enumerate((60.0, 120.0, 240.0)):
        began = desk.now
        assert desk.tell(desk.fails(task, msg=f"broke {number}")) == ["retried"]
        task = desk.retried()
        assert desk.now - began == delay
        assert task.meta["retry"] == str(number + 1)
    assert desk.tell(desk.fails(task, msg="broke 3")) == ["exhausted"]

    (dead_topic, dead), (failed_topic, event) = desk.send()
    assert (dead_topic, failed_topic) == ("t.dead", "retry-failed")
    letter = json.loads(dead)
    assert letter["code"] == "retries-exhausted"
    assert letter["reason"] == "given up after 4 attempts: broke 3"
    assert (letter["topic"], letter["type"], letter["id"], letter["attempts"]) == ("t", "t", "i", 4)
    assert letter["dead"] == "2026-01-31T12:07:00.000Z"
    assert letter["tries"] == [
        {
            "attempt": number + 1,
            "result": "error",
            "msg": f"broke {number}",
            "started": f"2026-01-31T12:{minute:02}:00.000Z",
            "completed": f"2026-01-31T12:{minute:02}:01.000Z",
        }
        for number, minute in enumerate((0, 1, 3, 7))
    ]
    kept = decode(original(letter))
    assert (kept.id, kept.job, kept.value, kept.result, dict(kept.meta)) == ("i", "j", "v", None, {})

    told = decode(event)
    assert (told.id, told.type, told.result, told.msg) == ("i", "t", Result.ERROR, "broke 3")
    assert dict(told.meta) == {"retry": "3", "retry_failed": "given up after 4 attempts"}
    assert desk.waiting() == []


def test_sent_back_it_begins_anew(desk: Desk) -> None:
    """A task given up and redriven is retried again, from the first retry on; its letter is one that redrive reads."""
    desk.tell(failed("never"))
    (_, letter), _ = desk.send()
    again = decode(read_letter(Delivery(letter, "x"), None).message(None).body)
    assert dict(again.meta) == {"redriven": "1"}
    assert desk.tell(desk.fails(again.replace(type="t"))) == ["retried"]
    assert desk.retried().meta == {"redriven": "1", "retry": "1"}


def test_within(desk: Desk) -> None:
    """No retry later than ``within`` after the first failure, however many are left."""
    task = failed("short")
    assert desk.tell(task) == ["retried"]
    task = desk.retried()
    assert desk.tell(desk.fails(task)) == ["retried"]
    task = desk.retried()
    assert desk.tell(desk.fails(task)) == ["exhausted"]
    (_, letter), _ = desk.send()
    assert json.loads(letter)["reason"].startswith(
        "given up after 3 attempts: the next would be later than 25m after the first: "
    )


def test_no_retries_is_a_dead_letter_at_once(desk: Desk) -> None:
    """A rule with no retries gives up after the first attempt."""
    assert desk.tell(failed("never")) == ["exhausted"]
    assert [topic for topic, _ in desk.send()] == ["never.dead", "retry-failed"]


def test_topics_of_a_rule(desk: Desk) -> None:
    """A rule may name where tasks and dead letters go."""
    desk.tell(failed("elsewhere"))
    ((topic, body),) = desk.send()
    assert topic == "other"
    desk.tell(desk.fails(decode(body)))
    (dead, letter), _ = desk.send()
    assert (dead, json.loads(letter)["topic"]) == ("graves", "other")


def test_without_event(store: Store, desk: Desk) -> None:
    """Nobody is told if nobody is to be."""
    quiet = Desk(store, desk.rules, failed_topic=None)
    quiet.tell(failed("never"))
    assert [topic for topic, _ in quiet.send()] == ["never.dead"]


@pytest.mark.parametrize(
    ("task", "fate"),
    [
        (failed(result="complete"), "unmatched"),
        (failed(result="warn"), "unmatched"),
        (failed(result="alert"), "unmatched"),
        (failed("warned", result="warn"), "retried"),
        (failed(meta={"workflow": "w"}), "unmatched"),
        (failed(meta={"dead": "rejected"}), "kept"),
        (failed(meta={"dead": "retries-exhausted"}), "kept"),
        (failed().replace(result=None), "unfinished"),
        (failed(meta={"retry": "x"}), "bad-retry"),
        (failed(meta={"retry": "-1"}), "bad-retry"),
        (failed("a b"), "bad-topic"),
    ],
)
def test_what_is_not_retried(desk: Desk, task: Task, fate: str) -> None:
    """What is done, what is an alert, what others retry or keep, and what makes no sense is not retried."""
    assert desk.tell(task) == [fate]
    assert len(desk.waiting()) == (fate == "retried")


def test_the_same_done_task_again(desk: Desk) -> None:
    """A done task that comes twice changes nothing: at once, later, after a restart, after its retry came back."""
    first = failed()
    assert desk.tell(first, first) == ["retried", "repeated"]
    assert desk.tell(first) == ["repeated"]
    desk.restart()
    assert desk.tell(first) == ["repeated"]
    assert len(desk.waiting()) == 1
    second = desk.fails(desk.retried())
    assert desk.tell(second, first, second) == ["retried", "repeated", "repeated"]
    third = desk.fails(desk.retried())
    assert desk.tell(third) == ["retried"]
    fourth = desk.fails(desk.retried())
    assert desk.tell(fourth, fourth, first) == ["exhausted", "repeated", "repeated"]
    desk.restart()
    assert desk.tell(fourth, third, second, first) == ["repeated"] * 4
    assert [topic for topic, _, _ in desk.waiting()] == ["t.dead", "retry-failed"]


def test_done_twice_by_two_workers(desk: Desk) -> None:
    """Where the bus had an attempt done twice, there is one retry; none if one of the two completed it."""
    first = failed()
    again = first.replace(msg="broke otherwise", completed=NOON + timedelta(minutes=9))
    assert desk.tell(first, again) == ["retried", "repeated"]
    assert len(desk.waiting()) == 1
    assert desk.tell(first.replace(result="complete")) == ["ended"]
    assert desk.waiting() == []


def test_failed_and_completed_in_one_batch(desk: Desk) -> None:
    """The retry that the first decided on is taken back although it was not stored yet."""
    assert desk.tell(failed(), failed(result="complete")) == ["retried", "ended"]
    assert desk.waiting() == []


@pytest.mark.parametrize("result", ["complete", "warn", "alert"])
def test_an_end(desk: Desk, result: str) -> None:
    """A retry that completes, or ends with an alert, ends it: nothing more is sent."""
    desk.tell(failed())
    done = desk.fails(desk.retried(), result)
    assert desk.tell(done, done) == ["ended", "repeated"]
    assert desk.waiting() == []


def test_another_life(desk: Desk) -> None:
    """A task made anew under an id that was used before is retried as if the first had never been."""
    desk.tell(failed())
    desk.tell(desk.fails(desk.retried(), "complete"))
    assert desk.tell(failed().replace(created=NOON + timedelta(days=1))) == ["retried"]
    assert desk.retried().meta["retry"] == "1"


def test_without_id(desk: Desk) -> None:
    """A task that came without an id gets one at its first retry, and is one task from then on."""
    assert desk.tell(failed(id=None)) == ["retried"]
    second = desk.retried()
    assert second.id == "derived"
    assert desk.tell(desk.fails(second)) == ["retried"]
    assert desk.retried().meta["retry"] == "2"


def test_what_belongs_to_an_attempt_is_left_out(desk: Desk) -> None:
    """A task that its worker had delayed begins anew to count attempts, and is not delayed again by its meta."""
    desk.tell(failed(meta={"a": "b", "attempts": "3", "run_at": "2026-01-31T12:00:00.000Z", "run_topic": "u"}))
    assert desk.retried().meta == {"a": "b", "retry": "1"}
    desk.tell(failed(id="k", meta={"attempts": "3"}))
    assert desk.retried().meta == {"retry": "1"}


def test_the_go_dialect(desk: Desk) -> None:
    """A task of the Go toolkit is sent again in its dialect, with job, meta and id, which its own retry loses."""
    done = failed(meta={"a": "b"}, dialect=Dialect.GO)
    desk.tell(decode(encode(done)))
    ((_, body),) = desk.send()
    data = json.loads(body)
    assert (data["info"], data["job"], data["id"], data["meta"]) == ("v", "j", "i", "a=b&retry=1")
    assert "ended" not in data
    assert "result" not in data


def test_a_state_that_was_lost(desk: Desk, tmp_path: Path) -> None:
    """The count travels with the task: with a new, empty state it goes on where it was."""
    desk.tell(failed())
    task = desk.retried()
    other = open_store(str(tmp_path / "other.db"), OUTBOX, RECORDS)
    try:
        anew = Desk(other, desk.rules)
        assert anew.tell(desk.fails(task)) == ["retried"]
        assert anew.retried().meta["retry"] == "2"
    finally:
        other.close()


def test_a_restart_keeps_what_waits(desk: Desk, state_url: str) -> None:
    """Retries, counts and history are in the file: a new process goes on with them, where flowlord's began anew."""
    desk.tell(failed())
    task = desk.retried()
    desk.tell(desk.fails(task))
    desk.store.close()

    store = open_store(state_url, OUTBOX, RECORDS)
    try:
        again = Desk(store, desk.rules)
        again.now = desk.now
        ((_, delay, message),) = again.waiting()
        assert (delay, decode(message.body).meta["retry"]) == (120, "2")
        third = again.fails(again.retried())
        assert again.tell(third) == ["retried"]
        again.tell(again.fails(again.retried()))
        (_, letter), _ = again.send()
        assert [attempt["attempt"] for attempt in json.loads(letter)["tries"]] == [1, 2, 3, 4]
    finally:
        store.close()


def test_history_is_bounded(desk: Desk) -> None:
    """Of many attempts the first and the last are remembered, and what each said is cut."""
    record = Record("r", NOW)
    for number in range(1, 301):
        record.add(records.try_of(failed(msg="x" * 5000), number))
    desk.store.call(lambda tx: records.save(tx, [record]))
    found = desk.store.call(lambda tx: records.load(tx, {"r"}))["r"]
    assert [attempt["attempt"] for attempt in found.tries] == [*range(1, 21), *range(221, 301)]
    assert {len(attempt["msg"]) for attempt in found.tries} == {1000}


def test_records_are_forgotten(desk: Desk) -> None:
    """What came to an end is forgotten after ``keep``; what waits is not, however long its delay."""

    def known() -> int:
        return len(desk.store.call(lambda tx: records.load(tx, {f"r{n}" for n in range(2000)})))

    many = [Record(f"r{n}", NOW, changed=NOW, ended=True) for n in range(1500)]
    desk.store.call(lambda tx: records.save(tx, [*many, Record("r1999", NOW, 1, changed=NOW + 90 * 86400)]))
    desk.now = NOW + 86400
    desk.tell(failed(id="a"))
    assert known() == 1501
    desk.now += 61
    desk.tell(failed(id="b"))
    desk.tell(failed(id="c"))
    assert known() == 1


def test_a_clock_that_is_set_back(desk: Desk) -> None:
    """Forgetting goes on when the clock shows an earlier time than before."""
    desk.tell(failed(id="a"))
    desk.now -= 10 * 86400
    old = [Record("old", 0.0, changed=desk.now - 2 * 86400, ended=True)]
    desk.store.call(lambda tx: records.save(tx, old))
    desk.tell(failed(id="b"))
    assert desk.store.call(lambda tx: records.load(tx, {"old"})) == {}


def test_the_same_calls_have_the_same_effect(desk: Desk, tmp_path: Path) -> None:
    """Ids, delays and bodies depend on what it is told alone: two engines that are told the same send the same."""

    def story(name: str) -> list[tuple[str, float, Outgoing]]:
        store = open_store(str(tmp_path / name), OUTBOX, RECORDS)
        try:
            other = Desk(store, desk.rules)
            other.tell(*(failed("short", id=str(n)) for n in range(20)), failed("never"))
            return other.waiting()
        finally:
            store.close()

    assert story("a.db") == story("b.db")
