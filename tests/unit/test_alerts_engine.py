"""What is told, when, and what is not told twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from task.outcome import Result
from task.task import Task
from taskmasters.alerts.condense import condense
from taskmasters.alerts.engine import AlertEngine
from taskmasters.alerts.notifier import waiting
from taskmasters.alerts.rules import load_alerts
from taskmasters.alerts.tables import ALERTS
from taskmasters.alerts.words import headline, slack, text
from taskmasters.store import Arrival, Store, open_store

NOW = 1_800_000_000.0
FILE = """
[[channel]]
id = "ops"
kind = "log"

[[rule]]
on = ["alert", "error", "exhausted", "unfinished"]
to = "ops"
collect = "10s"
min_interval = "5m"
max_interval = "20m"

[[deadline]]
topic = "load"
match = { type = "load" }
within = "1h"
"""


def done(id: str = "1", result: Result | None = Result.ALERT, kind: str = "load", **more: Any) -> Arrival:
    task = Task(kind, more.pop("value", "v"), id=id, meta=more.pop("meta", None), job=more.pop("job", None))
    if result is not None:
        completed = datetime.fromtimestamp(NOW, UTC)
        task = task.replace(result=result, msg=more.pop("msg", "it broke"), completed=completed)
    return Arrival(task, id)


class Run:
    """An engine with a state, driven by hand. ``begin`` is a start of the process."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._path = folder / "alerts.toml"
        self.store = store
        self._seen: set[str] = set()
        self.begin()

    def begin(self, given: str = FILE) -> None:
        self._path.write_text(given)
        self.engine = AlertEngine(load_alerts(str(self._path)))

    def done(self, at: float, *arrivals: Arrival) -> list[str]:
        return [fate.name for fate in self.store.call(lambda tx: self.engine.done(tx, arrivals, NOW + at))]

    def exhausted(self, at: float, *arrivals: Arrival) -> list[str]:
        return [fate.name for fate in self.store.call(lambda tx: self.engine.exhausted(tx, arrivals, NOW + at))]

    def sent(self, at: float, *arrivals: Arrival) -> list[str]:
        return [fate.name for fate in self.store.call(lambda tx: self.engine.sent("load")(tx, arrivals, NOW + at))]

    def tick(self, at: float, horizon: float | None = None) -> list[dict[str, Any]]:
        """What is to be told that was not before."""
        until = NOW + (at if horizon is None else horizon)
        while self.store.call(lambda tx: self.engine.tick(tx, NOW + at, until)):
            pass
        new = [told for _, told in self.store.call(waiting) if told["id"] not in self._seen]
        self._seen |= {told["id"] for told in new}
        return new


@pytest.fixture
def run(tmp_path: Path, state_url: str) -> Iterator[Run]:
    store = open_store(state_url, ALERTS)
    yield Run(tmp_path, store)
    store.close()


def test_what_happens_together_is_told_together(run: Run) -> None:
    """After the time of collecting, grouped by type, job and kind."""
    assert run.done(0, done("1"), done("2"), done("3", Result.ERROR), done("4", job="j")) == ["told"] * 4
    assert run.done(5, done("5", Result.COMPLETE), done("6", Result.WARN)) == ["passed", "passed"]
    assert run.tick(9) == []
    (told,) = run.tick(10)
    assert told["count"] == 4
    assert {(group["job"], group["kind"]): group["count"] for group in told["groups"]} == {
        (None, "alert"): 2,
        (None, "error"): 1,
        ("j", "alert"): 1,
    }
    assert run.tick(1000) == []


def test_delivered_twice_is_told_once(run: Run) -> None:
    """In one batch, in two, and after a restart."""
    assert run.done(0, done("1"), done("1")) == ["told", "repeated"]
    run.begin()
    assert run.done(1, done("1")) == ["repeated"]
    (told,) = run.tick(10)
    assert told["count"] == 1


def test_a_retry_that_fails_again_is_told_again(run: Run) -> None:
    """Though it is the same task."""
    assert run.done(0, done("1", Result.ERROR), done("1", Result.ERROR, meta={"retry": "1"})) == ["told", "told"]


def test_the_interval_grows_while_it_goes_on(run: Run) -> None:
    """10 s after the first, then after 5, 10, 20, 20 minutes."""
    moments = []
    for second in range(0, 6000, 10):
        run.done(second, done(str(second)))
        moments += [second for _ in run.tick(second)]
    gaps = [after - before for before, after in pairwise(moments)]
    assert moments[0] == 10
    assert gaps == [300, 600, 1200, 1200, 1200, 1200]


def test_the_interval_is_short_again_after_quiet(run: Run) -> None:
    """What comes after a silence in which nothing came is told soon."""
    run.done(0, done("1"))
    assert len(run.tick(10)) == 1
    run.done(20, done("2"))
    assert run.tick(309) == []
    assert len(run.tick(310)) == 1
    # The silence is now ten minutes, until 910.
    run.done(1000, done("3"))
    assert len(run.tick(1010)) == 1
    run.done(1020, done("4"))
    assert len(run.tick(1310)) == 1


def test_a_restart_neither_repeats_nor_forgets(run: Run) -> None:
    """flowlord sends all alerts of the day again."""
    run.done(0, done("1"))
    run.begin()
    assert len(run.tick(10)) == 1
    run.begin()
    assert run.tick(20) == []
    run.done(30, done("2"))
    run.begin()
    assert run.tick(309) == []
    assert len(run.tick(310)) == 1


def test_unfinished(run: Run) -> None:
    """A task that is not done in time is told once; one that is done is not."""
    assert run.sent(0, done("1", None), done("2", None), done("3", None, "other")) == ["watched", "watched", "passed"]
    run.done(100, done("1", Result.COMPLETE))
    assert run.tick(3599) == []
    run.tick(3600)
    (told,) = run.tick(3610)
    (group,) = told["groups"]
    assert (group["kind"], group["count"], group["examples"][0]["id"]) == ("unfinished", 1, "2")
    assert group["examples"][0]["msg"] == "not done within 1h"
    run.begin()
    assert run.tick(9999) == []


def test_done_before_it_was_seen(run: Run) -> None:
    """Two topics are read side by side: the end may come first."""
    run.done(0, done("1", Result.COMPLETE))
    run.sent(1, done("1", None))
    assert run.tick(9999) == []


def test_seen_twice(run: Run) -> None:
    """A task that is delivered again, even after it was done, has one deadline."""
    run.sent(0, done("1", None))
    run.done(1, done("1", Result.COMPLETE))
    run.sent(2, done("1", None))
    assert run.tick(9999) == []


def test_a_retry_has_a_deadline_of_its_own(run: Run) -> None:
    """The first try ended; the second did not."""
    run.sent(0, done("1", None))
    run.done(1, done("1", Result.ERROR))
    run.tick(20)
    run.sent(100, done("1", None, meta={"retry": "1"}))
    run.tick(3699)
    run.tick(3700)
    (told,) = run.tick(3710)
    assert told["groups"][0]["kind"] == "unfinished"


def test_nothing_is_late_beyond_what_is_known(run: Run) -> None:
    """While done tasks wait to be heard, as after a time away, none is told of as late."""
    run.sent(0, done("1", None), done("2", None))
    assert run.tick(9999, horizon=3599) == []
    run.done(10_000, done("1", Result.COMPLETE))
    run.tick(10_001, horizon=3601)
    (told,) = run.tick(10_011)
    assert told["count"] == 1


def test_a_task_without_an_id_cannot_be_watched(run: Run) -> None:
    """Its done task will have another: it is counted, not watched."""
    from task.codec import decode

    arrival = Arrival(decode(b'{"type":"load","task":"v"}'), "derived")
    assert run.sent(0, arrival) == ["no-id"]


def test_exhausted(run: Run) -> None:
    """A task that was given up is told, whatever its result."""
    assert run.exhausted(0, done("1", Result.ERROR), done("1", Result.ERROR)) == ["told", "repeated"]
    (told,) = run.tick(10)
    assert told["groups"][0]["kind"] == "exhausted"


def test_forgetting(run: Run) -> None:
    """What is old is forgotten; what is to be told or awaited is not."""
    run.sent(0, done("1", None))
    run.done(0, done("2"))
    run.tick(10)
    run.store.call(lambda tx: run.engine.forget(tx, NOW + 20))
    assert run.store.call(run.engine.waiting) == 1
    assert len(run.store.call(waiting)) == 1
    assert run.done(30, done("2")) == ["told"]


def test_very_many(run: Run) -> None:
    """10,000 alerts are one row with some examples; the text says how many more there were."""
    for start in range(0, 10_000, 500):
        run.done(
            start / 1000,
            *(done(str(number), value=f"2026/01/{number % 28 + 1:02}") for number in range(start, start + 500)),
        )
    (told,) = run.tick(60)
    (group,) = told["groups"]
    assert group["count"] == 10_000
    assert len(group["examples"]) == 5
    assert "for 2026-01-01…2026-01-28" in text(told)
    assert "… and 9995 more" in text(told)
    assert headline(told) == "10000 alert load"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ""),
        (["2026-01-01"], "2026-01-01"),
        (["2026-01-03", "2026-01-01", "2026-01-02", "2026-01-02", "2026-01-09"], "2026-01-01…2026-01-03, 2026-01-09"),
        (["2026-01-01", "2026-01-01T01", "2026-01-01T03"], "2026-01-01T00…2026-01-01T01, 2026-01-01T03"),
        (["2026-01-01T00:00:05"], "2026-01-01T00:00:05"),
        (["2026-01-31", "2026-02-01"], "2026-01-31…2026-02-01"),
    ],
)
def test_condense(given: list[str], expected: str) -> None:
    """Days if all are midnights, hours else."""
    assert condense(map(datetime.fromisoformat, given)) == expected


def test_words_cannot_be_forged(run: Run) -> None:
    """A message of a task makes no line of its own, no mention and no link in Slack."""
    run.done(0, done("1", msg="x\nFORGED <!channel> ``` & \x1b[31m"))
    (told,) = run.tick(10)
    assert not any(line.startswith("FORGED") for line in text(told).splitlines())
    body = slack(told)["text"]
    assert "<!channel>" not in body
    assert "&lt;!channel&gt;" in body
    assert body.count("```") == 2
    assert "\x1b" not in body
