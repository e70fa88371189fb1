"""The batcher: what requests say, that each is carried to its end once, over restarts, and that its end is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from task.codec import decode
from task.errors import TaskError
from task.outcome import Result
from task.task import Dialect, Task
from taskmasters.batcher.engine import BatcherEngine
from taskmasters.batcher.making import Making
from taskmasters.batcher.request import Places, Request, read_request
from taskmasters.batcher.tables import REQUESTS
from taskmasters.clock import VirtualClock
from taskmasters.store import Arrival, Fate, Outgoing, Store, open_store, outbox
from taskmasters.store.outbox import OUTBOX
from taskmasters.store.relay import Refused

#: 2026-11-21T11:42:00Z
NOW = 1795261320.0


def request(task: Task | str, places: Places | None = None) -> Request:
    """The batch that a value asks for."""
    found = read_request(task if isinstance(task, Task) else Task("batcher", task), "r", NOW, places or Places())
    assert isinstance(found, Request)
    return found


def values(task: Task | str, places: Places | None = None) -> list[str]:
    """The values of its tasks."""
    return [each.value for each in request(task, places).plan.tasks()]


def test_the_options_of_batch() -> None:
    """Every option of the command is a parameter, the template may be the fragment."""
    asked = "?type=load&job=j&topic=t&from=2026-01-01&to=2025-12-30&by=day&every=2&timezone=Europe/Berlin"
    asked += "&meta=a:{dd}&meta=b:x"
    made = list(request(f"{asked}&task={quote('s3://b/{yyyy}?n={meta:a}')}").plan.tasks())
    assert [each.value for each in made] == ["s3://b/2026?n=01", "s3://b/2025?n=30"]
    assert {(each.type, each.job) for each in made} == {("load", "j")}
    assert made[0].meta == {"a": "01", "b": "x", "cron": "2025-12-31T23:00:00Z", "batch": "r"}
    assert request(asked).plan.topic == "t"
    assert values("?type=load&from=2026-01-01T03&for=-2h&by=hour#{hh}") == ["03", "02", "01"]
    assert values("?type=load&from=2026-01-01&for=23h&by=hour&hours=0-3&except-hours=1#{hh}") == ["00", "02", "03"]


def test_as_the_go_toolkit_asks(tmp_path: Path) -> None:
    """Its names, its default of an hour, columns as meta; its tasks are in its dialect."""
    (tmp_path / "rows.json").write_text('{"id":1,"c":"x y"}\n{"id":2}\n')
    places = Places(rows=str(tmp_path))
    text = "rows.json?task-type=load&from=2026-01-01T00&to=2026-01-01T06&every-x-hours=6&meta=k:v|l:w"
    made = list(
        request(Task("batcher", f"{text}#s3://{{YYYY}}/{{HH}}?id={{meta:id}}", dialect=Dialect.GO), places).plan.tasks()
    )
    # Each moment has all rows: there, the second had none.
    assert [each.value for each in made] == [f"s3://2026/{hour}?id={id}" for hour in ("00", "06") for id in (1, 2)]
    assert {each.meta["k"] + each.meta["l"] for each in made} == {"vw"}
    assert made[0].meta["c"] == "x y"
    assert {each._dialect for each in made} == {Dialect.GO}
    go = "?task-type=load&from=2026-01-01T00&to=2026-01-01T03"
    assert values(f"{go}#{{hh}}") == ["00", "01", "02", "03"]
    assert values(f"{go}&on-hours=1,2#{{hh}}") == ["01", "02"]
    assert values(f"{go}&off-hours=1,2#{{hh}}") == ["00", "03"]
    assert values("?task-type=load&daily&from=2026-01-01&for=48h#{dd}") == ["01", "02", "03"]
    assert values("?task-type=load&daily&from=now&for=-24h#{dd}") == ["21", "20"]


def test_a_rule_and_a_workflow(tmp_path: Path) -> None:
    """They are named by their id; those that are there are those the batcher was started with."""
    (tmp_path / "rules.toml").write_text('[[rule]]\nid="w"\ncron="0 5 * * 1"\ntype="load"\ntask="{dd}"\n')
    (tmp_path / "flow.toml").write_text('[[job]]\ntype = "a"\n[[job]]\ntype = "b"\ndepends_on = "a"\n')
    places = Places(rules=str(tmp_path / "rules.toml"), workflows=str(tmp_path / "flow.toml"))
    assert values("?rule=w&from=2026-01&to=2026-01-15", places) == ["05", "12"]
    (asked,) = request("?workflow=flow&phase=b&from=2026-01-01", places).plan.tasks()
    assert (asked.type, asked.meta["run_from"]) == ("flow", "b")
    assert request("?workflow=flow&from=2026-01-01", places).plan.topic == "requests"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "which tasks? Give their type and task, or a rule"),
        ("?type=load", "which tasks? Give from and to, rows"),
        ("?typ=load", "unknown parameter 'typ'; did you mean 'type'?"),
        ("?type=load&type=x&from=now", "type is said twice"),
        ("?type=load&task-type=x&from=now", "type is said twice"),
        ("?type=load&from=now&task=a#b", "task is said twice"),
        ("?type=load&from=soon", "from: 'soon' is no moment"),
        ("?type=load&from=now&by=year", "by: 'year' is none of hour, day, week, month"),
        ("?type=load&from=now&by=day&daily", "say the same"),
        ("?type=load&from=now&daily=maybe", "daily: 'maybe'"),
        ("?type=load&from=now&every=x", "every: 'x' is no number of steps"),
        ("?type=load&from=now&rate=0", "rate: '0' is no number"),
        ("?type=load&from=now&rate=nan", "rate: 'nan' is no number"),
        ("?type=load&from=now&meta=x", "meta: 'x' is not KEY:TEMPLATE"),
        ("?type=load&from=now#{yyy}", "did you mean 'yyyy'"),
        ("?type=a/b&from=now", "type: "),
        ("?type=load&rows=x.csv", "without --rows-folder"),
        ("?rule=x&from=now", "without --rules"),
        ("?workflow=x&from=now", "without --workflows"),
        ("?cancel=x&type=y", "cancel stands alone"),
        ("?type=%ff&from=now", "the value is no query"),
    ],
)
def test_what_is_no_request(value: str, said: str) -> None:
    """Each mistake is told with the name of the parameter."""
    with pytest.raises(TaskError) as caught:
        request(value)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/passwd", "link.csv", "\x00.csv"])
def test_rows_come_from_their_folder_only(tmp_path: Path, name: str) -> None:
    """Whatever a request says: not above it, not elsewhere, not through a link."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "secret.csv").write_text("id\n1\n")
    (tmp_path / "rows" / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(TaskError, match="not in the folder of rows"):
        request(f"?type=load&rows={quote(name)}", Places(rows=str(tmp_path / "rows")))


class Batcher:
    """The engine and its making in the hands of a test."""

    def __init__(self, state: str, places: Places | None = None, store: Store | None = None) -> None:
        self.places = places or Places()
        self.clock = VirtualClock(NOW)
        self.store = store or open_store(state, OUTBOX, REQUESTS)
        self.restart()

    def restart(self) -> None:
        """Forget everything that is not in the state."""
        self.engine = BatcherEngine(self.places, "done", lambda topic: f"{topic}.dead")
        self.making = Making(self.engine, self.store, self.clock, 60.0)

    def ask(self, value: str, id: str = "r", **meta: str) -> Fate:
        """Have a request come."""
        arrival = Arrival(Task("batcher", value, id=id, meta=meta), id)
        return self.store.call(lambda tx: self.engine.apply(tx, [arrival], self.clock.now()))[0]

    def turn(self) -> bool:
        """A portion of each."""
        return asyncio.run(self.making._turn())

    def sent(self) -> list[Outgoing]:
        """What is due now."""
        found: list[Outgoing] = []
        while batch := self.store.call(lambda tx: outbox.due(tx, self.clock.now(), 500)):
            self.store.call(lambda tx, some=batch: outbox.sent(tx, some, self.clock.now()))  # type: ignore[misc]
            found += [stored.message for stored in batch]
        return found

    def finish(self) -> list[Task]:
        """Everything it makes now, the ends of requests last."""
        found: list[Outgoing] = []
        busy = True
        while busy:
            busy = self.turn()
            found += self.sent()
        return [decode(one.body) for one in sorted(found, key=lambda one: one.topic == "done")]


def test_a_request_is_carried_to_its_end(state_url: str) -> None:
    """In portions, each task once; then it is told, and coming again changes nothing."""
    batcher = Batcher(state_url)
    assert batcher.ask("?type=load&from=2026-01-01&for=1200h&by=hour#{yyyy}{mm}{dd}{hh}") == Fate("accepted")
    *made, end = batcher.finish()
    assert [task.value for task in made[:2]] == ["2026010100", "2026010101"]
    assert len({task.id for task in made}) == len(made) == 1201
    assert (end.type, end.id, end.result, end.msg, end.meta["tasks"]) == (
        "batcher",
        "r",
        Result.COMPLETE,
        "made 1201 tasks",
        "1201",
    )
    assert batcher.ask("?type=load&from=2026-01-01#x") == Fate("repeated")
    assert batcher.finish() == []
    batcher.store.close()


def test_stopped_between_any_two_steps(tmp_path: Path) -> None:
    """Begun anew after each portion, it makes what it makes without."""
    whole = Batcher(":memory:")
    whole.ask("?type=load&from=2026-01-01&for=1700h&by=hour#{hh}")
    expected = [task.id for task in whole.finish()]
    torn = Batcher(str(tmp_path / "s.db"))
    torn.ask("?type=load&from=2026-01-01&for=1700h&by=hour#{hh}")
    found: list[str | None] = []
    busy = True
    while busy:
        torn.restart()
        busy = torn.turn()
        found += [decode(one.body).id for one in torn.sent()]
    assert found == expected
    torn.store.close()


def test_two_instances_share(state_url: str) -> None:
    """Each task is put once, whoever puts it."""
    one, two = Batcher(state_url), Batcher(state_url)
    one.ask("?type=load&from=2026-01-01&for=2000h&by=hour#{hh}")
    found: list[Outgoing] = []
    for _ in range(30):
        busy = [one.turn(), two.turn()]
        found += one.sent()
        if not any(busy):
            break
    ids = [message.id for message in found]
    assert len(ids) == len(set(ids)) == 2001 + 1
    one.store.close()
    two.store.close()


def test_a_rate(tmp_path: Path) -> None:
    """Tasks are due as it says, and made only shortly before; another request is not held up."""
    batcher = Batcher(":memory:")
    batcher.ask("?type=slow&from=2026-01-01&for=99h&by=hour&rate=2#{hh}")
    batcher.ask("?type=fast&from=2026-01-01&for=9h&by=hour#{hh}", "f")
    first = batcher.finish()
    assert [task.type for task in first].count("fast") == 10
    assert [task.type for task in first].count("slow") == 1
    assert batcher.store.call(outbox.count) < 20
    batcher.clock.set(NOW + 10)
    assert len(batcher.finish()) == 20
    slow = 21
    for second in range(11, 60):
        batcher.clock.set(NOW + second)
        slow += len(batcher.finish())
    assert slow == 100 + 1


def test_cancelled() -> None:
    """It makes no more, and both are told."""
    batcher = Batcher(":memory:")
    batcher.ask("?type=load&from=2026-01-01&for=99h&by=hour&rate=1#{hh}")
    batcher.finish()
    assert batcher.ask("?cancel=r", "c") == Fate("cancelled")
    ends = [task for task in batcher.finish() if task.result]
    assert [(task.id, task.result, task.msg) for task in ends] == [
        ("r", Result.ERROR, "cancelled; 6 of 100 tasks were made"),
        ("c", Result.COMPLETE, "cancelled r"),
    ]
    batcher.clock.set(NOW + 1000)
    assert len(batcher.finish()) == 5
    batcher.ask("?cancel=r", "d")
    assert [(task.result, task.msg) for task in batcher.finish()] == [(Result.ERROR, "there is no batch 'r' under way")]


def test_a_wrong_request() -> None:
    """It is a dead letter with the reason, and told as failed; once."""
    batcher = Batcher(":memory:")
    fate = batcher.ask("?typ=load")
    assert (fate.code, fate.reason) == ("bad-request", "unknown parameter 'typ'; did you mean 'type'?")
    (end,) = batcher.finish()
    assert (end.result, end.msg) == (Result.ERROR, fate.reason)


def test_nothing_is_made_of_a_batch_with_a_wrong_row(tmp_path: Path) -> None:
    """All tasks are made before the first is sent; mended and asked for again by a retry, it is done."""
    rows = tmp_path / "rows.csv"
    rows.write_text("id\n" + "1\n" * 700 + "1,2\n")
    batcher = Batcher(":memory:", Places(rows=str(tmp_path)))
    assert batcher.ask("rows.csv?type=load#{row:id}").name == "accepted"
    (end,) = batcher.finish()
    assert end.result is Result.ERROR
    assert "rows.csv:702: has 2 values for 1 columns; 0 tasks were made" in end.msg
    rows.write_text("id\n" + "1\n" * 700)
    assert batcher.ask("rows.csv?type=load#{row:id}", retry="1").name == "accepted"
    assert len(batcher.finish()) == 701


@pytest.mark.parametrize("again", [False, True])
def test_rows_that_change_meanwhile(tmp_path: Path, again: bool) -> None:
    """What is made of them would be neither the one nor the other: it is given up, and says how far it came."""
    rows = tmp_path / "rows.csv"
    rows.write_text("id\n" + "1\n" * 700)
    batcher = Batcher(":memory:", Places(rows=str(tmp_path)))
    batcher.ask("rows.csv?type=load#{row:id}")
    assert batcher.turn()
    assert batcher.turn()
    rows.write_text("id\n" + "2\n" * 900)
    if again:
        batcher.restart()
    made = batcher.finish()
    assert len(made) == 501
    assert made[-1].result is Result.ERROR
    assert "changed meanwhile; 500 of 700 tasks were made" in made[-1].msg


def test_nothing_to_make() -> None:
    """A batch of no tasks ends at once."""
    batcher = Batcher(":memory:")
    batcher.ask("?type=load&from=2026-01-01&hours=5#{hh}")
    (end,) = batcher.finish()
    assert (end.result, end.msg) == (Result.COMPLETE, "made 0 tasks")


def test_ended_requests_are_forgotten() -> None:
    """After ``keep`` one of the same id is another."""
    batcher = Batcher(":memory:")
    batcher.ask("?type=load&from=2026-01-01#{hh}")
    batcher.finish()
    batcher.clock.set(NOW + 121)
    batcher.turn()
    assert batcher.ask("?type=load&from=2026-01-01#{hh}").name == "accepted"


def test_what_the_bus_refuses() -> None:
    """Its dead letter goes where dead letters of its topic do."""
    batcher = Batcher(":memory:")
    batcher.ask("?type=load&from=2026-01-01#{hh}")
    batcher.turn()
    batcher.turn()
    messages: Sequence[Outgoing] = batcher.sent()
    refused = [Refused(messages[0], "too large", 1)]
    batcher.store.call(lambda tx: batcher.engine.refused(tx, refused, NOW))
    assert [one.topic for one in batcher.sent()] == ["load.dead"]
