"""The application and the commands that look at its runs, by their command lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.cli.errors import run as invoke
from task.codec import decode
from task.exits import Exit
from task.task import Task
from taskmasters.workflow.alone import WorkflowAlone
from taskmasters.workflow.app import workflow
from taskmasters.workflow.commands import cancel, list_, show
from taskmasters.workflow.load import load_workflows
from tests.flows import START, Flow

FILE = """
[[start]]
cron = "0 5 * * *"

[[job]]
type = "load"
for_each = "1..2"
task = "{item}"
retry = { count = 1, delay = "1h", jitter = false }

[[job]]
type = "tell"
depends_on = "load"
task = "{job.load.meta:rows}"
"""


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    """Three runs: one completed, one that waits for a retry, one that was only asked for."""
    flow = Flow(tmp_path, FILE, str(tmp_path / "s.db"))
    flow.request(id="first")
    flow.done(*flow.sent(), rows="1")
    flow.finish()
    flow.now += 60
    flow.request(id="second")
    one, two = flow.sent()
    flow.done(one, result="error", msg="no\nbucket")
    flow.done(two, rows="1")
    return flow


def ids(flow: Flow) -> list[str]:
    return [run["run"] for run in flow.runs()]


def test_list(flow: Flow, capfd: pytest.CaptureFixture[str]) -> None:
    """Newest first, as a table or as JSON lines, by workflow and state."""
    assert invoke(list_, ["--state", flow.state]) == Exit.OK
    head, second, first = capfd.readouterr().out.splitlines()
    assert head.split() == ["run", "workflow", "state", "key", "created", "ended", "error"]
    assert second.split()[1:4] == ["flow", "InProgress", "second"]
    assert first.split()[1:4] == ["flow", "Completed", "first"]
    assert invoke(list_, ["--state", flow.state, "--json", "--in-state", "completed", "--workflow", "flow"]) == Exit.OK
    (run,) = map(json.loads, capfd.readouterr().out.splitlines())
    assert (run["key"], run["created"], run["open_jobs"]) == ("first", "2026-01-01T00:00:00Z", 0)
    assert invoke(list_, ["--state", flow.state, "--workflow", "other", "--json"]) == Exit.OK
    assert capfd.readouterr().out == ""
    flow.store.close()


def test_show(flow: Flow, capfd: pytest.CaptureFixture[str]) -> None:
    """A run with its jobs, and the tasks worth a look with every attempt."""
    first, second = ids(flow)
    assert invoke(show, [second[:10], "--state", flow.state]) == Exit.OK
    lines = capfd.readouterr().out.splitlines()
    assert "state:      InProgress" in lines
    assert any(line.split()[:6] == ["load", "running", "2", "1", "0", "1"] for line in lines)
    tasks = [line.split() for line in lines if line.startswith("load[")]
    assert [(task[0], task[2], *task[5:]) for task in tasks] == [
        ("load[0]", "1", "error", "no", "bucket"),
        ("load[0]", "2", "open", "-"),
    ]
    assert invoke(show, [first, "--state", flow.state, "--json", "--all"]) == Exit.OK
    run = json.loads(capfd.readouterr().out)
    assert [(job["job"], job["tasks"], job["completed"]) for job in run["jobs"]] == [("load", 2, 2), ("tell", 1, 1)]
    assert [(task["job"], task["number"], len(task["attempts"])) for task in run["tasks"]] == [
        ("load", 0, 1),
        ("load", 1, 1),
        ("tell", 0, 1),
    ]
    flow.store.close()


def test_cancel(flow: Flow, capfd: pytest.CaptureFixture[str]) -> None:
    """A run that goes on is cancelled by the taskmaster; one that has ended cannot be."""
    first, second = ids(flow)
    assert invoke(cancel, [second, "--state", flow.state]) == Exit.OK
    assert f"run {second} will be cancelled" in capfd.readouterr().out
    assert flow.tick(7200) == []
    assert [run["state"] for run in flow.runs()] == ["Completed", "Cancelled"]
    assert invoke(cancel, [first, "--state", flow.state]) == Exit.FAILED
    assert f"run {first} has ended already" in capfd.readouterr().err
    flow.store.close()


def test_what_is_not_there(flow: Flow, capfd: pytest.CaptureFixture[str]) -> None:
    """A state or a run that is not there is told, and nothing is made."""
    missing = str(flow.folder / "missing.db")
    assert invoke(list_, ["--state", missing]) == Exit.FAILED
    assert "there is no state in" in capfd.readouterr().err
    assert not Path(missing).exists()
    assert invoke(show, ["zz", "--state", flow.state]) == Exit.FAILED
    assert "there is no run whose id begins with 'zz'" in capfd.readouterr().err
    assert invoke(show, ["", "--state", flow.state]) == Exit.FAILED
    assert "there are several runs" in capfd.readouterr().err
    assert invoke(list_, ["--state", "postgrsql://x/y"]) == Exit.USAGE
    flow.store.close()


def test_check_and_dry_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that would fail says so; one with a step, a handler and a compensation is explained."""
    path = tmp_path / "flow.toml"
    path.write_text(FILE)
    assert invoke(workflow, [str(path), "--dry-run"]) == Exit.FAILED
    told = capfd.readouterr()
    assert [json.loads(line)["task"] for line in told.out.splitlines()] == ["1", "2"]
    assert (
        "a run would fail, if every task completed without meta: tell: there is no value for {job.load.meta" in told.err
    )
    path.write_text(
        """
        max_runs = 3
        [[start]]
        done.type = "x"
        [[start]]
        after = ["flow.a", "flow"]
        when = "any"
        [[step]]
        name = "s"
        [[step.job]]
        name = "a"
        type = "t"
        job = "j"
        topic = "other"
        deadline = "90s"
        on_failure = "compensate"
        compensate = { type = "u" }
        [[job]]
        type = "h"
        depends_on = "s"
        on = "failed"
        if.a.msg = "disk*"
        """
    )
    assert invoke(workflow, [str(path), "--check"]) == Exit.OK
    assert capfd.readouterr().out.splitlines() == [
        "flow",
        "  starts: when done: x that ended with complete",
        "  starts: after flow.a or flow",
        "  starts: by request: a task of type flow",
        "  at most 3 runs at a time; others queue",
        "  h: h '', after a failed, if a has msg disk*",
        "  step s",
        "    a: t:j '', on topic other, within 1m30s, on failure compensate",
        "  undo a: u ''",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[job]]\ntype = "a"\ntopic = "done"\n', "the job a sends to the topic done, where no worker finds it"),
        ('[[job]]\ntype = "a"\ntopic = "requests"\n', "the job a asks for the workflow a, which is not there"),
    ],
)
def test_topics_that_cannot_be(tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, told: str) -> None:
    """A job must not send to where its own done tasks come from, nor ask for what is not there."""
    path = tmp_path / "flow.toml"
    path.write_text(text)
    args = [str(path), "--bus", f"memory:{tmp_path.name}", "--state", str(tmp_path / "s.db")]
    assert invoke(workflow, args) == Exit.USAGE
    assert told in capfd.readouterr().err


def test_alone(tmp_path: Path) -> None:
    """For simulations: moments in, messages out; ``wake`` says when it acts by itself."""
    (tmp_path / "flow.toml").write_text(FILE.replace("retry", 'deadline = "3h"\nretry'))
    alone = WorkflowAlone(load_workflows(str(tmp_path / "flow.toml")), START, "done")
    assert alone.wake == START + 5 * 3600
    assert alone.tick(START) == []
    one, two = alone.tick(START + 5 * 3600)
    assert alone.wake == START + 8 * 3600
    failed = decode(one.body).replace(result="error")
    assert alone.done(failed, START + 6 * 3600) == []
    assert alone.wake == START + 7 * 3600
    (again,) = alone.tick(START + 7 * 3600)
    assert again.id == one.id.replace(".1", ".2")
    alone.tick(START + 8 * 3600)
    alone.tick(START + 9 * 3600)
    (end, *_) = [m for m in alone.tick(START + 13 * 3600) if m.topic == "done"]
    assert b"no done task within 3h" in end.body
    assert len(alone.failures()) == 1
    assert two.due == START + 5 * 3600
    with pytest.raises(ValueError, match="no workflow 'flwo' to ask for; did you mean 'flow'"):
        alone.request(Task("flwo"), START)
    alone.close()
