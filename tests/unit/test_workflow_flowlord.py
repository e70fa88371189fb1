"""The workflows of flowlord, the Go toolkit's taskmaster, in files of ours: the same tasks, without its defects."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bus import BusError, Delivery, connect
from task.codec import decode
from task.errors import SettingsError
from task.task import Task
from taskmasters.batch.asked import Asked, make_plan
from taskmasters.batch.rows import read_rows
from taskmasters.clock import SystemClock
from taskmasters.delay.engine import DelayEngine
from taskmasters.files.entry import Entry
from taskmasters.files.rules import load_file_rules
from taskmasters.store import open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.stored.taskmaster import StoredTaskmaster
from taskmasters.workflow.book import Book
from taskmasters.workflow.explain import explain
from taskmasters.workflow.load import load_workflows, read_stored
from taskmasters.workflow.looking import show_run
from taskmasters.workflow.options import WorkflowOptions
from tests.flows import START, Flow

#: task = "load:hourly", rule = "cron=0 5 * * * *&offset=-4h&retry_delay=30s", retry = 3, and two phases that depend on
#: it: one for any job of load, one with require={meta:rows} and meta=table:visits,clicks|keep:7,30.
PHASES = """
[[start]]
cron = "0 5 * * * *"
offset = "-4h"

[[job]]
type = "load"
job = "hourly"
task = "s3://b/{yyyy}/{mm}/{dd}?hour={yyyy}-{mm}-{dd}T{hh}"
retry = { count = 3, delay = "30s" }

[[job]]
type = "index"
depends_on = "hourly"
task = "{job.hourly.path}?at={hh}"

[[job]]
type = "split"
depends_on = "hourly"
if.hourly.meta.rows = "*"
for_each = [{ table = "visits", keep = "7" }, { table = "clicks", keep = "30" }]
task = "s3://t/{row:table}?keep={row:keep}&rows={job.hourly.meta:rows}"
"""


def test_a_cron_phase_and_its_children(tmp_path: Path) -> None:
    """The parent has the time of the instant plus offset; the children that of the parent."""
    flow = Flow(tmp_path, PHASES)
    (load,) = flow.tick(300.0)
    assert (load.type, load.job, load.value) == ("load", "hourly", "s3://b/2025/12/31?hour=2025-12-31T20")
    assert {key: load.meta[key] for key in ("workflow", "cron")} == {"workflow": "flow", "cron": "2026-01-01T00:05:00Z"}
    flow.done(load, rows="17")
    assert flow.values() == [
        "index /2025/12/31?at=20",
        "split s3://t/visits?keep=7&rows=17",
        "split s3://t/clicks?keep=30&rows=17",
    ]


def test_require(tmp_path: Path) -> None:
    """Without the meta that is required the child is not made; its sibling is."""
    flow = Flow(tmp_path, PHASES)
    flow.done(*flow.tick(300.0))
    assert [task.type for task in flow.sent()] == ["index"]
    assert flow.states["split"] == "skipped"


def test_batch_of_hours(tmp_path: Path) -> None:
    """``for=-24h&by=hour``: from the time to 24 hours before, both included, latest first; times the rows of a file."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "rows.jsonl").write_text('{"name":"a b"}\n{"name":"c"}\n')
    flow = Flow(
        tmp_path,
        """
        [[start]]
        cron = "0 6 * * *"
        [[job]]
        type = "fill"
        for_each = { times = "-24h", by = "hour" }
        task = "{yyyy}-{mm}-{dd}T{hh}"
        [[job]]
        type = "named"
        for_each = { file = "rows.jsonl" }
        task = "?n={row:name}"
        """,
    )
    values = [task.value for task in flow.tick(6 * 3600)]
    assert len(values) == 25 + 2
    assert (values[0], values[1], values[24]) == ("2026-01-01T06", "2026-01-01T05", "2025-12-31T06")
    assert values[25:] == ["?n=a%20b", "?n=c"]


def test_a_file_phase(tmp_path: Path) -> None:
    """A file that came starts a run, with the name and size of the file."""
    flow = Flow(
        tmp_path,
        """
        [[start]]
        done = { type = "files", value = "s3://in/*.json*" }
        [[job]]
        type = "load"
        task = "{request.origin}?lines={meta:linecnt}"
        """,
    )
    flow.done(Task("files", "s3://in/2026/a.json.gz", id="f", meta={"linecnt": "12"}))
    assert flow.values() == ["load s3://in/2026/a.json.gz?lines=12"]


def test_a_file_that_the_files_taskmaster_saw(tmp_path: Path) -> None:
    """Its task is the request: the file is its value, and the moment is what the path tells."""
    (tmp_path / "files.toml").write_text(
        '[[rule]]\npath = "s3://in/{yyyy}/{mm}/{dd}/*.json"\ntype = "flow"\ntopic = "requests"\n'
    )
    (rule,) = load_file_rules(str(tmp_path / "files.toml"))
    flow = Flow(tmp_path, '[[job]]\ntype = "load"\ntask = "{request.value}?day={dd}&name={request.filename}"\n')
    task = decode(rule.make("f", [Entry("s3://in/2025/12/24/a.json", 1, 0.0, "v")], "", flow.now))
    flow.request(task.type, task.id or "", task.value, **task.meta)
    assert rule.topic == "requests"
    assert flow.values() == ["load s3://in/2025/12/24/a.json?day=24&name=a.json"]


def test_defect_3_children_with_rows_of_their_own(tmp_path: Path) -> None:
    """A child with columns of its own, of a parent with several values under a meta key: all children are made."""
    flow = Flow(tmp_path, PHASES)
    (load,) = flow.tick(300.0)
    flow.done(load, rows="1,2,3", other="x")
    assert [task.value for task in flow.sent() if task.type == "split"] == [
        "s3://t/visits?keep=7&rows=1%2C2%2C3",
        "s3://t/clicks?keep=30&rows=1%2C2%2C3",
    ]


def test_defect_4_tasks_of_one_batch_stay_apart(tmp_path: Path) -> None:
    """Tasks of one batch, and attempts within one second, each have a record of their own."""
    flow = Flow(
        tmp_path, '[[job]]\ntype = "part"\nfor_each = "1..50"\ntask = "{item}"\nretry = { count = 1, delay = 0 }'
    )
    flow.request()
    parts = flow.sent()
    assert len({part.id for part in parts}) == 50
    flow.done(*parts, result="error")
    flow.done(*flow.sent())
    tasks = flow.tasks
    assert len(tasks) == 50
    assert all([attempt["result"] for attempt in task["attempts"]] == ["error", "complete"] for task in tasks)


def test_defect_5_late_is_told_in_time(tmp_path: Path) -> None:
    """Four hours are four hours, on the same date too, for whatever started the run."""
    flow = Flow(
        tmp_path,
        '[[start]]\ndone.type = "files"\n[[job]]\ntype = "load"\ndeadline = "4h"\n',
    )
    flow.done(Task("files", id="f"))
    assert len(flow.sent()) == 1
    flow.tick(4 * 3600 - 1)
    assert flow.run["state"] == "InProgress"
    flow.tick(1)
    assert flow.run["state"] == "Failed"
    assert flow.run["ended"] == "2026-01-01T04:00:00Z"


def test_defect_6_runs_are_kept(tmp_path: Path) -> None:
    """Without a word about it runs are kept for 30 days, not until the next look."""
    assert WorkflowOptions().keep == 30 * 86400
    flow = Flow(tmp_path, PHASES)
    flow.done(*flow.tick(300.0))
    flow.finish()
    assert flow.call(lambda tx: flow.engine.forget(tx, flow.now - WorkflowOptions().keep)) == 0
    assert len(flow.runs()) == 1


def test_defect_7_the_same_job_in_two_files(tmp_path: Path) -> None:
    """Each file's job has its own retries and children, though type and job are the same."""
    job = '[[job]]\ntype = "load"\njob = "x"\nretry = {retries}\n[[job]]\ntype = "after-{name}"\ndepends_on = "x"\n'
    names = {"one": 0, "two": 1}
    flow = Flow(tmp_path, {name: job.format(retries=retries, name=name) for name, retries in names.items()})
    flow.request("one", id="1")
    flow.request("two", id="2")
    one, two = flow.sent()
    assert flow.done(one, two, result="error") == ["failed", "retried"]
    (again,) = flow.tick(10.0)
    flow.done(again)
    assert flow.values() == ["after-two"]


@pytest.mark.parametrize("instances", [1, 2])
def test_defect_10_a_restart_forgets_nothing(tmp_path: Path, instances: int) -> None:
    """Retries that wait survive; instants that were missed are made up for; several instances double nothing."""
    state = str(tmp_path / "s.db")
    flow = Flow(tmp_path, PHASES.replace("[[start]]", '[[start]]\nmissed = "all"', 1), state)
    (load,) = flow.tick(300.0)
    flow.done(load, result="error")
    assert flow.sent() == []
    flow.now = START + 3 * 3600
    flow.restart()
    others = [Flow(tmp_path, (flow.folder / "flow.toml").read_text(), state) for _ in range(instances - 1)]
    for other in others:
        other.now = flow.now
    sent = [*flow.tick(), *(task for other in others for task in other.tick())]
    assert sorted(task.meta["cron"] for task in sent) == [
        "2026-01-01T00:05:00Z",
        "2026-01-01T01:05:00Z",
        "2026-01-01T02:05:00Z",
    ]
    assert len({task.id for task in sent}) == 3
    assert load.id in {task.id for task in sent}
    for one in (flow, *others):
        one.store.close()


def test_backload(tmp_path: Path) -> None:
    """``POST /backload`` of a phase: its tasks for a range, latest first, with columns as meta, and their children."""
    flow = Flow(tmp_path, PHASES)
    (tmp_path / "rows.csv").write_text("rows\n17\n")
    asked = Asked(
        id="b",
        workflow=load_workflows(str(flow.folder))[0],
        phase="split",
        start="2026-01-02T05",
        end="2026-01-02T03",
        by="hour",
        rows=lambda: read_rows(str(tmp_path / "rows.csv")),
    )
    requests = list(make_plan(asked, flow.now, str).tasks())
    for request in requests:
        flow.request(request.type, request.id or "", **request.meta)
    assert [request.meta["cron"][11:13] for request in requests] == ["05", "04", "03"]
    # What it takes from the phase before it, which was left out, comes from the row.
    assert flow.values()[:2] == ["split s3://t/visits?keep=7&rows=17", "split s3://t/clicks?keep=30&rows=17"]
    for request in make_plan(replace(asked, id="c", rows=None), flow.now, str).tasks():
        flow.request(request.type, request.id or "", **request.meta)
    # Without one the run fails and says why: flowlord would leave the placeholder in.
    assert flow.sent() == []
    failed = [run["run"] for run in flow.runs() if run["state"] == "Failed"]
    assert "{job.hourly.meta:rows}" in flow.call(lambda tx: show_run(tx, failed[0]))["error"]
    for request in make_plan(replace(asked, id="d", phase="hourly", rows=None), flow.now, str).tasks():
        flow.request(request.type, request.id or "", **request.meta)
    loads = flow.sent()
    assert [task.value[-13:] for task in loads] == ["2026-01-02T01", "2026-01-02T00", "2026-01-01T23"]
    flow.done(*loads, rows="3")
    assert len(flow.values()) == 3 * 3


def test_defect_1_and_2_a_refresh_doubles_nothing(tmp_path: Path) -> None:
    """A file read again, however often, fires each instant and each file once; a bad one changes nothing."""
    flow = Flow(tmp_path, PHASES + '\n[[start]]\ndone.type = "files"\n')
    bad = flow.folder / "bad.toml"
    for text in ("[[job]]\n", "no toml", '[[start]]\ncron = "61 * * * *"\n'):
        bad.write_text(text)
        with pytest.raises(SettingsError, match=r"bad\.toml"):
            load_workflows(str(flow.folder))
    bad.unlink()
    for _ in range(3):
        book = Book(load_workflows(str(flow.folder)), read_stored)
        flow.call(lambda tx, book=book: flow.engine.open(tx, flow.now, book))  # type: ignore[misc]
    assert [task.type for task in flow.tick(300.0)] == ["load"]
    assert flow.done(Task("files", "s3://in/a", id="f")) == ["started"]
    assert [task.type for task in flow.sent()] == ["load"]


def test_defect_8_everything_that_will_start_is_shown(tmp_path: Path) -> None:
    """Batches, files and what follows other workflows, with the next instant of what has one."""
    flow = Flow(
        tmp_path,
        {
            "fill": '[[start]]\ncron = "0 6 * * *"\n[[job]]\ntype = "x"\nfor_each = { times = "-24h", by = "hour" }\n',
            "file": '[[start]]\ndone.type = "files"\n[[job]]\ntype = "y"\n',
            "next": '[[start]]\nafter = "fill"\n[[job]]\ntype = "z"\n',
        },
    )
    shown = "\n".join(explain(load_workflows(str(flow.folder)), flow.now))
    assert "next 2026-01-01T06:00:00Z" in shown
    assert "for each hour from the hour of the run to -1d from it" in shown
    assert "when done: files" in shown
    assert "after fill" in shown
    assert flow.engine.upcoming() == {"fill/0": int(START + 6 * 3600)}


def test_defect_9_nothing_stops_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the receiving ends the taskmaster with it: no process stays up that hears nothing."""

    async def refuse(limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        raise BusError("no more")

    async def main() -> None:
        async with connect("memory:") as bus, asyncio.timeout(30):
            producer, consumer = await bus.producer(), await bus.consumer("done", "x")
            monkeypatch.setattr(consumer, "receive", refuse)
            store = open_store(":memory:", OUTBOX)
            engine = DelayEngine("done", "done.dead")
            master = StoredTaskmaster(engine, store, consumer, producer, SystemClock(), dead_topic="done.dead")
            try:
                with pytest.raises(BusError, match="no more"):
                    await master.run()
            finally:
                store.close()

    asyncio.run(main())


def test_defect_12_the_zone_of_the_machine_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word about it everything is UTC, wherever it runs."""
    values = set()
    for zone in ("UTC", "America/New_York", "Asia/Kolkata"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            folder = tmp_path / zone.replace("/", "-")
            folder.mkdir()
            (load,) = Flow(folder, PHASES).tick(300.0)
        finally:
            monkeypatch.undo()
            time.tzset()
        values.add((load.value, load.meta["cron"]))
    assert values == {("s3://b/2025/12/31?hour=2025-12-31T20", "2026-01-01T00:05:00Z")}
