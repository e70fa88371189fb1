"""A worker on a bus that cannot delay for so long: the delay taskmaster keeps the task, its attempts are counted."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bus import Delivery, connect
from bus.memory.bus import MemoryBus
from task import Context, Outcome, SettingsError, Task, Worker, complete, decode, encode, error, retry_later
from task.admission import Admission
from task.assignment import Assignment
from task.dead import dead_letter
from task.delaying import attempts_before, delayed
from task.options import WorkerOptions
from task.retry import Backoff
from task.times import parse_time
from task.verdict import Action, Judge, Verdict, _warn
from task.worker_app import WorkerApp
from taskmasters.clock import SystemClock
from taskmasters.delay.engine import DelayEngine
from taskmasters.store import open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.stored.taskmaster import StoredTaskmaster
from tests.helpers import await_until


def judge(**more: Any) -> Judge:
    """The rules of an application on a bus that can delay for a minute."""
    rules: dict[str, Any] = {
        "topic": "t", "group": "g", "done_topic": "done", "dead_topic": "t.dead", "retries": 3,
        "backoff": Backoff("fixed", 90.0), "max_attempts": 5, "longest_delay": 60.0, "delay_topic": "delay",
    }  # fmt: skip
    return Judge(**{**rules, **more})


def verdict(outcome: Outcome | None, task: Task, attempt: int = 1, **more: Any) -> Verdict:
    """What comes of an attempt at a task."""
    found = Admission(task.type, WorkerOptions(), judge(**more)).admit(Delivery(encode(task), "m", attempt))
    assert isinstance(found, Assignment), found
    found.outcome, found.crashed, found.reason = outcome, outcome is None, "" if outcome else "it died"
    found.started = found.completed = "2026-01-31T12:00:00.000Z"
    return judge(**more).ended(found)


@pytest.mark.parametrize("outcome", [retry_later("4h"), error("broke"), None])
def test_a_long_delay_is_given_away(outcome: Outcome | None) -> None:
    """RetryLater, an error with retries left and a crash: the task goes to the delay taskmaster, with its attempts."""
    task = Task("t", "v", id="i", job="j", meta={"a": "b"})
    found = verdict(outcome, task, 2)
    assert (found.action, found.result) == (Action.FINISH, "retried")
    (message,) = found.messages
    sent = decode(message.body)
    assert message.topic == "delay"
    assert (sent.id, sent.job, sent.value, sent.result) == ("i", "j", "v", None)
    meta = dict(sent.meta)
    seconds = (parse_time(meta.pop("run_at")) - datetime.now(UTC)).total_seconds()
    assert meta == {"a": "b", "attempts": "2"}
    delay = 14400 if outcome is not None and outcome.retry_in else 90
    assert delay - 30 < seconds <= delay


def test_back_to_its_own_topic() -> None:
    """A worker on a topic that is not its type's says so, so that the task comes back there."""
    found = verdict(retry_later(90), Task("t", id="i"), topic="u")
    assert decode(found.messages[0].body).meta["run_topic"] == "u"


@pytest.mark.parametrize("delay", [0, 60])
def test_a_short_delay_is_the_bus_s(delay: float) -> None:
    """What the bus can delay stays there."""
    found = verdict(retry_later(delay), Task("t", id="i"))
    assert (found.action, found.delay, found.messages) == (Action.NACK, delay, ())


def test_without_a_topic_the_bus_cuts_it(caplog: pytest.LogCaptureFixture) -> None:
    """Without --delay-topic it is handed back as before, and it is said once that it comes earlier."""
    _warn.cache_clear()
    with caplog.at_level(logging.WARNING, "taskbus.worker"):
        for _ in range(3):
            found = verdict(retry_later(90), Task("t", id="i"), delay_topic=None)
            assert (found.action, found.delay, found.messages) == (Action.NACK, 90, ())
        verdict(retry_later(90), Task("t", id="i"), delay_topic=None, longest_delay=0.0)
    first, second = (record.getMessage() for record in caplog.records)
    assert "cannot delay what it has delivered for more than 1m: retries of t come earlier" in first
    assert "cannot delay what it has delivered at all" in second


def test_attempts_go_on() -> None:
    """What came back counts the attempts it had: for the context, for --retries, for --max-attempts, in its letter."""
    back = Task("t", id="i", meta={"attempts": "2"})
    assert isinstance(found := Admission("t", WorkerOptions(), judge()).admit(Delivery(encode(back), "m")), Assignment)
    assert found.context.attempt == 3
    assert verdict(error("broke"), back, 1).result == "retried"
    assert decode(verdict(error("broke"), back, 1).messages[0].body).meta["attempts"] == "3"
    last = verdict(error("broke"), back, 2)
    assert (last.result, last.code) == ("dead", "retries-exhausted")
    assert json.loads(last.messages[0].body)["attempts"] == 4
    assert json.loads(last.messages[1].body)["meta"] == {"attempts": "2", "dead": "retries-exhausted"}
    assert verdict(retry_later(90), back, 2).result == "retried"
    assert verdict(retry_later(90), back, 3).code == "retries-exhausted"
    assert "5 of at most 5" in (verdict(None, back, 3).reason or "")
    late = Admission("t", WorkerOptions(), judge()).admit(Delivery(encode(back), "m", 4))
    assert isinstance(late, Verdict)
    assert late.code == "too-many-attempts"
    assert "delivered 6 times" in (late.reason or "")


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "²", "1234567"])
def test_a_count_that_is_none(text: str) -> None:
    """A foreign meta of that name counts nothing."""
    assert attempts_before(Task("t", meta={"attempts": text})) == 0


def test_not_before() -> None:
    """A task that is not due for longer than the bus can wait is given away too, and that is no attempt."""
    when = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    task = Task("t", id="i", meta={"not_before": when, "attempts": "2"})
    found = Admission("t", WorkerOptions(), judge()).admit(Delivery(encode(task), "m", 3))
    assert isinstance(found, Verdict)
    assert (found.action, found.result) == (Action.FINISH, "released")
    assert decode(found.messages[0].body).meta["attempts"] == "2"


def test_on_receipt_nothing_is_repeated() -> None:
    """Where tasks are acknowledged on receipt, none is given to the delay taskmaster either."""
    found = verdict(retry_later(90), Task("t", id="i"), at_most_once=True)
    assert "delay" not in [message.topic for message in found.messages]


def test_a_delay_beyond_the_calendar() -> None:
    """An absurd delay is cut to a hundred years rather than failing."""
    found = verdict(retry_later(1e300), Task("t", id="i"))
    assert parse_time(decode(found.messages[0].body).meta["run_at"]).year > 2100


def test_letters_count_all_attempts() -> None:
    """A dead letter tells all attempts, those before it was delayed too."""
    task = delayed(Task("t", id="i"), datetime.now(UTC), "t", 4)
    letter = dead_letter(Delivery(b"", "m", 2), topic="t", group=None, reason="", code="", task=task)
    assert json.loads(letter)["attempts"] == 6


def test_a_whole_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RetryLater on a bus that cannot delay: the task waits in the store, comes back in time, and is done at last."""
    short = replace(MemoryBus.capabilities, nack_delay=None)
    monkeypatch.setattr(MemoryBus, "capabilities", short)
    url = f"memory:{uuid4().hex}"
    attempts: list[tuple[int, float]] = []

    class NotYet(Worker):
        type = "not-yet"

        async def do_task(self, ctx: Context) -> Outcome:
            attempts.append((ctx.attempt, time.monotonic()))
            return complete() if ctx.attempt == 3 else retry_later(0.3)

    async def main() -> None:
        store = open_store(str(tmp_path / "delay.db"), OUTBOX)
        app = WorkerApp(NotYet, WorkerOptions(bus=url, delay_topic="delay"))
        async with connect(url) as bus, await bus.producer() as producer:
            engine = DelayEngine("delay", "delay.dead")
            consumer = await bus.consumer("delay", "delay")
            master = StoredTaskmaster(engine, store, consumer, producer, SystemClock(), dead_topic="delay.dead")
            await producer.publish("not-yet", encode(Task("not-yet", id="i")))
            works = [asyncio.create_task(app.run()), asyncio.create_task(master.run())]
            await await_until(lambda: app.stats.results["complete"])
            app.stop()
            master.stop()
            await asyncio.gather(*works)
            assert dict(app.stats.results) == {"retried": 2, "complete": 1}
        store.close()

    asyncio.run(main())
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert all(later - earlier >= 0.3 for (_, earlier), (_, later) in pairwise(attempts))


def test_in_and_out_that_differ(tmp_path: Path) -> None:
    """A delayed task would come back by the bus it is sent to, so --delay-topic is refused where that is another."""
    options = WorkerOptions(bus="memory:x", out=str(tmp_path / "out"), delay_topic="delay")
    with pytest.raises(SettingsError, match="--delay-topic delay: tasks come back by the bus they came from"):
        WorkerApp(_Idle, options)
    with pytest.raises(SettingsError, match="--delay-topic idle: the tasks are received from there too"):
        WorkerApp(_Idle, WorkerOptions(bus="memory:x", delay_topic="idle"))


class _Idle(Worker):
    type = "idle"

    def do_task(self, ctx: Context) -> Outcome:
        return complete()
