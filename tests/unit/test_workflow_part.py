"""Runs that are asked to begin with a later job, for a moment and a key of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows import Flow

FLOW = """
[[start]]
cron = "0 5 * * *"
offset = "-1d"

[[job]]
type = "fetch"

[[job]]
type = "list"

[[job]]
type = "load"
depends_on = ["fetch", "list"]
if.fetch.meta.rows = "*"
for_each = ["a", "b"]
task = "{yyyy}-{mm}-{dd}/{item}?n={job.fetch.meta:n|default:none}"

[[job]]
type = "index"
each = "load"
task = "{job.load.value}"

[[job]]
type = "report"
depends_on = ["load", "list"]
when = "any"

[[job]]
type = "tell"
depends_on = "load"
on = "failed"

[[job]]
type = "undone"
depends_on = "fetch"
"""


def test_a_run_that_begins_with_a_later_job(tmp_path: Path) -> None:
    """It and what follows from it; what is before counts for nothing, conditions on it neither."""
    flow = Flow(tmp_path, FLOW)
    assert flow.request(run_from="load", cron="2026-02-01T00:00:00Z") == "started"
    loads = flow.sent()
    assert [task.value for task in loads] == ["2026-02-01/a?n=none", "2026-02-01/b?n=none"]
    assert flow.states["fetch"] == flow.states["list"] == flow.states["undone"] == "skipped"
    assert flow.states["report"] == "waiting"
    flow.done(*loads)
    assert flow.finish() == ["index 2026-02-01/a?n=none", "index 2026-02-01/b?n=none", "report"]
    assert flow.run["state"] == "Completed"
    assert flow.states == {
        **dict.fromkeys(("fetch", "list", "tell", "undone"), "skipped"),
        **dict.fromkeys(("load", "index", "report"), "completed"),
    }


def test_its_failure(tmp_path: Path) -> None:
    """Its error branch runs, and the run has failed."""
    flow = Flow(tmp_path, FLOW)
    flow.request(run_from="load", cron="2026-02-01T00:00:00Z")
    assert flow.finish("load")[2:] == ["tell"]
    assert flow.run["state"] == "Failed"


def test_a_restart_in_its_midst(tmp_path: Path) -> None:
    """What is no part of it is known from the state alone."""
    flow = Flow(tmp_path, FLOW, str(tmp_path / "s.db"))
    flow.request(run_from="load", cron="2026-02-01T00:00:00Z")
    loads = flow.sent()
    flow.restart()
    flow.done(*loads)
    assert flow.finish() == ["index 2026-02-01/a?n=none", "index 2026-02-01/b?n=none", "report"]
    assert flow.run["state"] == "Completed"
    flow.store.close()


def test_it_begins_with_a_step(tmp_path: Path) -> None:
    """All jobs of the step; the steps before it are left out, jobs of other workflows too."""
    steps = "".join(
        f'[[step]]\nname = "{name}"\n[[step.job]]\ntype = "{name}1"\n[[step.job]]\ntype = "{name}2"\n' for name in "xyz"
    )
    other = '[[job]]\ntype = "wait"\ndepends_on = "flow.x1"\n[[job]]\ntype = "after"\ndepends_on = "wait"\n'
    flow = Flow(tmp_path, {"flow": steps, "other": other})
    flow.request(run_from="y")
    assert flow.finish() == ["y1", "y2", "z1", "z2"]
    flow.request("other", id="second", run_from="wait")
    assert flow.finish() == ["wait", "after"]
    assert {run["state"] for run in flow.runs()} == {"Completed"}


def test_compensation_of_a_part(tmp_path: Path) -> None:
    """Only what was done is undone."""
    flow = Flow(
        tmp_path,
        """
        [[step]]
        on_failure = "compensate"
        [[step.job]]
        type = "a"
        compensate = { type = "undo-a" }
        [[step]]
        name = "second"
        on_failure = "compensate"
        [[step.job]]
        type = "b"
        compensate = { type = "undo-b" }
        [[step.job]]
        type = "c"
        """,
    )
    flow.request(run_from="second")
    assert flow.finish("c") == ["b", "c", "undo-b"]
    assert flow.run["state"] == "Failed"


def test_the_moment_and_the_key(tmp_path: Path) -> None:
    """``run_moment`` is what cron's offset makes of its instant; runs of one key are one, and wait for each other."""
    flow = Flow(
        tmp_path,
        {"flow": FLOW, "next": '[[job]]\ntype = "late"\ndepends_on = "flow.report"\n'},
    )
    meta = {"run_key": "june 1", "run_moment": "2026-05-31T05:00:00Z", "cron": "2026-06-01T05:00:00Z"}
    assert flow.request(id="1", run_from="load", **meta) == "started"
    assert flow.request(id="2", run_from="load", **meta) == "repeated"
    assert flow.request("next", id="3", run_key="june 1") == "started"
    loads = flow.sent()
    assert loads[0].value == "2026-05-31/a?n=none"
    assert loads[0].meta["cron"] == "2026-06-01T05:00:00Z"
    flow.done(*loads)
    assert flow.finish()[-1] == "late"


@pytest.mark.parametrize(
    ("meta", "fate"),
    [
        ({"run_from": "laod"}, "dead"),
        ({"run_from": "index"}, "dead"),
        ({"run_moment": "soon"}, "dead"),
        ({"cron": "soon"}, "dead"),
        ({"run_from": ""}, "dead"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, meta: dict[str, str], fate: str) -> None:
    """It becomes a dead letter, and no run begins."""
    flow = Flow(tmp_path, FLOW)
    assert flow.request(**meta) == fate
    assert flow.runs() == []
