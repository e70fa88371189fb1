"""How runs go through their graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from task.retry import Backoff
from task.task import Task
from taskmasters.store import outbox
from taskmasters.store.inbox import Arrival
from taskmasters.store.relay import Refused
from taskmasters.workflow import tables
from taskmasters.workflow.definition import Retry
from taskmasters.workflow.looking import show_run
from tests.flows import START, Flow

#: Requests are broken into steps, steps into jobs: side by side in a step, one step after the other.
STEPS = """
[[step]]
name = "fetch"

[[step.job]]
type = "fetch"
name = "left"
task = "{request.value}/left"
retry = { count = 2, delay = "10s", jitter = false }

[[step.job]]
type = "fetch"
name = "right"
task = "{request.value}/right"

[[step]]
name = "join"

[[step.job]]
type = "join"
task = "{job.left.meta:rows|default:0}+{job.right.meta:rows|default:0}"

[[step]]
[[step.job]]
type = "tell"
task = "{job.join.msg}"
"""


def test_steps_of_a_request(tmp_path: Path, state_url: str) -> None:
    """A request goes from step to step, each begun when every job of the one before has completed."""
    flow = Flow(tmp_path, STEPS, state_url)
    assert flow.request(value="s3://b") == "started"
    assert flow.run["state"] == "InProgress"
    left, right = flow.sent()
    assert [left.value, right.value] == ["s3://b/left", "s3://b/right"]
    assert flow.done(left, rows="3") == ["completed"]
    assert flow.values() == []
    assert flow.done(right, rows="4", msg="fine") == ["completed"]
    (join,) = flow.sent()
    assert join.value == "3+4"
    flow.done(join, msg="seven rows")
    (tell,) = flow.sent()
    assert tell.value == "seven rows"
    assert flow.ends == []
    flow.done(tell)
    assert flow.values() == []
    assert flow.run["state"] == "Completed"
    (end,) = flow.ends
    assert (end.type, end.id, end.value, end.result) == ("flow", "request", "s3://b", "complete")
    assert end.meta["run"] == flow.run["run"]
    flow.store.close()


def test_a_step_that_fails(tmp_path: Path, state_url: str) -> None:
    """A failure that cannot be recovered from ends the request: no further step; what runs comes to its end."""
    flow = Flow(tmp_path, STEPS, state_url)
    flow.request()
    left, right = flow.sent()
    assert flow.done(right, result="error", msg="no such bucket") == ["failed"]
    assert flow.run["state"] == "InProgress"
    assert flow.states == {"left": "running", "right": "failed", "join": "skipped", "tell": "skipped"}
    flow.done(left)
    assert flow.values() == []
    assert flow.run["state"] == "Failed"
    assert flow.run["error"] == "right: no such bucket"
    (end,) = flow.ends
    assert (end.result, end.msg) == ("error", "right: no such bucket")
    flow.store.close()


def test_a_job_is_retried_and_every_attempt_kept(tmp_path: Path) -> None:
    """An error with retries left is tried again after its delay, with the same id; the history stays."""
    flow = Flow(tmp_path, STEPS)
    flow.request()
    left, right = flow.sent()
    flow.done(right)
    assert flow.done(left, result="error", msg="once") == ["retried"]
    assert flow.tick(9.9) == []
    (again,) = flow.tick(0.2)
    assert (again.id, again.value, again.meta["attempt"]) == (left.id, left.value, "2")
    assert flow.done(left, result="error", msg="once") == ["late"], "the same done message, delivered again"
    flow.done(again, result="error", msg="twice")
    (last,) = flow.tick(20.0)
    flow.done(last, msg="at last")
    (task,) = [task for task in flow.tasks if task["job"] == "left"]
    assert [(a["attempt"], a["result"], a["msg"]) for a in task["attempts"]] == [
        (1, "error", "once"),
        (2, "error", "twice"),
        (3, "complete", "at last"),
    ]
    assert flow.states["join"] == "running"


def test_retries_end(tmp_path: Path) -> None:
    """After its retries a job has failed, and a message that comes twice changes nothing more."""
    flow = Flow(tmp_path, STEPS)
    flow.request()
    left, right = flow.sent()
    flow.done(right)
    for _ in range(2):
        assert flow.done(left, result="error", msg="no") == ["retried"]
        (left,) = flow.tick(100.0)
    assert flow.done(left, result="error", msg="never") == ["failed"]
    assert flow.done(left, result="error", msg="never") == ["repeated"]
    assert flow.run["error"] == "left: never"


@pytest.mark.parametrize("result", ["alert", "warn"])
def test_alert_fails_at_once_and_warn_completes(tmp_path: Path, result: str) -> None:
    """An alert is never retried; a warning is a completion."""
    flow = Flow(tmp_path, STEPS)
    flow.request()
    left, right = flow.sent()
    assert flow.done(left, right, result=result) == ["failed" if result == "alert" else "completed"] * 2
    assert flow.run["state"] == ("Failed" if result == "alert" else "InProgress")


def test_a_done_task_that_comes_twice(tmp_path: Path) -> None:
    """Nothing is made a second time, in one batch or in another; what is no task of ours is passed over."""
    flow = Flow(tmp_path, STEPS)
    flow.request()
    left, right = flow.sent()
    assert flow.done(left, left, right, right) == ["completed", "repeated", "completed", "repeated"]
    assert len(flow.sent()) == 1
    assert flow.done(left, right) == ["repeated", "repeated"]
    assert flow.sent() == []
    assert flow.request() == "repeated"
    assert flow.done(left.replace(id="strange"), left.replace(id="f" * 32)) == ["unmatched", "unmatched"]


GRAPH = """
[[job]]
name = "a"
type = "a"
on_failure = "continue"

[[job]]
name = "b"
type = "b"
on_failure = "continue"

[[job]]
name = "both"
type = "t"
task = "both"
depends_on = ["a", "b"]

[[job]]
name = "either"
type = "t"
task = "either"
depends_on = ["a", "b"]
when = "any"

[[job]]
name = "broken"
type = "t"
task = "broken {job.a.msg}"
depends_on = "a"
on = "failed"

[[job]]
name = "always"
type = "t"
task = "always"
depends_on = ["broken", "either"]
on = "ended"
"""


def test_all_any_failed_and_ended(tmp_path: Path) -> None:
    """A job waits for all its parents or any of them, and for how they end."""
    flow = Flow(tmp_path, GRAPH)
    flow.request()
    a, b = flow.sent()
    flow.done(a)
    assert flow.values() == ["t either"]
    flow.done(b)
    assert flow.values() == ["t both"]
    assert flow.states["broken"] == "skipped"
    flow.done(*[task for task in flow.all if task.value in ("either", "both")])
    (always,) = flow.sent()
    flow.done(always)
    assert flow.run["state"] == "Completed"


def test_failures_that_are_passed_over(tmp_path: Path) -> None:
    """``continue``: the job has failed, what depends on it goes on, and so does the job that is there for failures."""
    flow = Flow(tmp_path, GRAPH)
    flow.request()
    a, _ = flow.sent()
    flow.done(a, result="error", msg="ouch")
    assert sorted(flow.values()) == ["t broken ouch", "t either"]
    assert sorted(flow.finish()) == []
    flow.done(*flow.all[1:])
    flow.finish()
    assert flow.run["state"] == "Completed"
    assert flow.states == {
        "a": "failed",
        "b": "completed",
        "both": "completed",
        "either": "completed",
        "broken": "completed",
        "always": "completed",
    }


def test_stop_still_does_what_is_there_for_failures(tmp_path: Path) -> None:
    """When a job fails that stops the run, its handler runs, and what waits for neither is skipped."""
    flow = Flow(
        tmp_path,
        """
        [[job]]
        type = "a"
        [[job]]
        type = "slow"
        [[job]]
        type = "after-slow"
        depends_on = "slow"
        [[job]]
        type = "clean"
        depends_on = "a"
        on = "failed"
        [[job]]
        type = "cleaned"
        depends_on = "clean"
        [[job]]
        type = "slow-failed"
        depends_on = "slow"
        on = "failed"
        """,
    )
    flow.request()
    a, slow = flow.sent()
    flow.done(a, result="alert", msg="fire")
    assert flow.values() == ["clean"]
    flow.done(slow, result="error", msg="too")
    assert flow.values() == ["slow-failed"], "what was under way when the run failed has its handler too"
    flow.done(*flow.all[2:])
    assert flow.finish() == ["cleaned"]
    assert flow.run["state"] == "Failed"
    assert flow.states["after-slow"] == "skipped"


def test_compensation(tmp_path: Path) -> None:
    """What was completed is undone, last first, one after the other, each knowing what it undoes."""
    flow = Flow(
        tmp_path,
        """
        [[job]]
        type = "book"
        for_each = ["flight", "hotel"]
        task = "{item}"
        compensate = { type = "cancel", task = "{item} {job.book.meta:number}" }
        [[job]]
        type = "pay"
        depends_on = "book"
        compensate = { type = "refund", retry = 1 }
        [[job]]
        type = "never"
        depends_on = "pay"
        compensate = { type = "undo-never" }
        [[job]]
        type = "send"
        depends_on = "pay"
        on_failure = "compensate"
        """,
    )
    flow.request()
    flight, hotel = flow.sent()
    flow.done(flight, number="1")
    flow.done(hotel, number="2")
    flow.done(*flow.sent())
    never, send = flow.sent()
    flow.done(send, result="error", msg="no post")
    assert flow.run["state"] == "InProgress"
    flow.done(never, result="alert", msg="bad")
    assert flow.run["state"] == "Compensating"
    (refund,) = flow.sent()
    assert refund.type == "refund"
    flow.done(refund)
    assert flow.values() == ["cancel flight 1", "cancel hotel 2"]
    assert flow.ends == []
    cancels = flow.all[-2:]
    flow.done(cancels[0])
    flow.done(cancels[1], result="error", msg="closed")
    assert flow.run["state"] == "Failed"
    assert flow.run["error"] == "send: no post; failed: undo book"
    assert flow.states["undo never"] == "skipped"


def test_conditions(tmp_path: Path) -> None:
    """A job is skipped unless what it asks for is so."""
    flow = Flow(
        tmp_path,
        """
        [[job]]
        type = "count"
        [[job]]
        type = "many"
        depends_on = "count"
        if = { count = { meta = { rows = ["1*", "2*"] }, result = "complete" } }
        [[job]]
        type = "none"
        depends_on = "count"
        if.count.msg = "*no rows*"
        [[job]]
        type = "full"
        depends_on = "count"
        if.request.meta.mode = "full"
        [[job]]
        type = "after-many"
        depends_on = "many"
        """,
    )
    flow.request(mode="full")
    flow.done(*flow.sent(), rows="17")
    assert flow.values() == ["many", "full"]
    assert (flow.states["none"], flow.states["after-many"]) == ("skipped", "waiting")
    flow.done(*flow.all[1:])
    assert flow.finish() == ["after-many"]
    assert flow.run["state"] == "Completed"


FAN = """
[[job]]
name = "split"
type = "split"

[[job]]
name = "part"
type = "part"
depends_on = "split"
for_each = "{job.split.meta:parts}"
task = "s3://in/{item}?n={index}"
on_failure = "continue"

[[job]]
name = "check"
type = "check"
each = "part"
task = "{job.part.meta:out|default:-} {item}"
if.part.result = "complete"

[[job]]
name = "all"
type = "all"
depends_on = ["part", "check"]
task = "{job.part.completed}/{job.part.count} {job.part.failed} failed: {job.check.value}"
"""


def test_fan_out_each_and_fan_in(tmp_path: Path, state_url: str) -> None:
    """A job for each item of a result, one for each of those as soon as it is done, and one that waits for all."""
    flow = Flow(tmp_path, FAN, state_url)
    flow.request()
    flow.done(*flow.sent(), parts="x, y,z z")
    x, y, z = flow.sent()
    assert [task.value for task in (x, y, z)] == ["s3://in/x?n=0", "s3://in/y?n=1", "s3://in/z%20z?n=2"]
    assert len({x.id, y.id, z.id}) == 3
    flow.done(z, out="Z")
    (check,) = flow.sent()
    assert check.value == "Z z z"
    flow.done(x, result="error", msg="no")
    assert flow.sent() == []
    flow.done(check)
    flow.done(y, out="Y")
    (last,) = flow.sent()
    flow.done(last)
    assert flow.values() == ["all 2/3 1 failed: Y y,Z z z"]
    flow.done(flow.all[-1])
    assert flow.run["state"] == "Completed"
    flow.store.close()


@pytest.mark.parametrize("parts", ["", " , "])
def test_fan_out_over_nothing(tmp_path: Path, parts: str) -> None:
    """No items, no tasks: what follows goes on."""
    flow = Flow(tmp_path, FAN)
    flow.request()
    flow.done(*flow.sent(), parts=parts)
    assert flow.finish() == []
    assert flow.states["part"] == "completed"
    assert flow.run["error"] == "all: there is no value for {job.check.value}"
    assert flow.run["state"] == "Failed"


def test_a_value_that_is_missing(tmp_path: Path) -> None:
    """A template that cannot be filled fails its job, and says why."""
    flow = Flow(tmp_path, FAN)
    flow.request()
    flow.done(*flow.sent())
    assert flow.finish() == []
    assert flow.run["state"] == "Completed", "part has on_failure = continue, but nothing of it for the last"


def test_chains_of_each(tmp_path: Path) -> None:
    """Tasks that follow one another, each for its own item, do not wait for the others."""
    flow = Flow(
        tmp_path,
        """
        [[job]]
        type = "a"
        for_each = "1..3"
        task = "{item}"
        on_failure = "continue"
        [[job]]
        type = "b"
        each = "a"
        task = "{item}"
        on_failure = "continue"
        [[job]]
        type = "c"
        each = "b"
        task = "{item} of {job.a.msg} and {job.b.id}"
        [[job]]
        type = "d"
        depends_on = "c"
        task = "{job.c.count}"
        """,
    )
    flow.request()
    first, second, third = flow.sent()
    flow.done(second, msg="B")
    (b,) = flow.sent()
    flow.done(b)
    (c,) = flow.sent()
    assert c.value == f"2 of B and {b.id}"
    flow.done(first, result="error")
    flow.done(c)
    flow.done(third, msg="C")
    (b3,) = flow.sent()
    flow.done(b3, result="error")
    assert flow.values() == ["d 1"]


def test_deadline(tmp_path: Path) -> None:
    """A task whose done task does not come in time is tried again, and in the end has failed; both are marked."""
    flow = Flow(
        tmp_path,
        """
        [[job]]
        type = "slow"
        deadline = "1h"
        retry = { count = 1, delay = "60s", backoff = "fixed", jitter = false }
        """,
    )
    flow.request()
    (slow,) = flow.sent()
    assert flow.call(flow.engine.deadline) == START + 3600
    assert flow.tick(3599.0) == []
    flow.tick(1.0)
    (again,) = flow.tick(60.0)
    assert again.id == slow.id
    flow.tick(3600.0)
    assert flow.run["state"] == "Failed"
    assert flow.run["error"] == "slow: no done task within 1h"
    (task,) = flow.tasks
    assert [(a["result"], a["msg"]) for a in task["attempts"]] == [("late", "no done task within 1h")] * 2
    assert flow.done(again) == ["repeated"]
    assert flow.call(flow.engine.deadline) is None


def test_an_attempt_taken_for_lost_completes(tmp_path: Path) -> None:
    """What it did is done: the next attempt, not sent yet, is taken back."""
    flow = Flow(tmp_path, '[[job]]\ntype = "slow"\ndeadline = "1h"\nretry = { count = 1, delay = "60s" }')
    flow.request()
    (slow,) = flow.sent()
    flow.tick(3600.0)
    assert flow.done(slow) == ["completed"]
    assert flow.run["state"] == "Completed"
    assert flow.tick(1000.0) == []


def test_backoff_is_derived() -> None:
    """Delays grow as asked for; jitter takes up to half, spread over tasks, always the same for one."""
    fibonacci = Retry(9, Backoff("fibonacci", 2.0, 20.0, jitter=False), jitter=False)
    assert [fibonacci.delay("j", n) for n in range(1, 8)] == [2, 2, 4, 6, 10, 16, 20]
    jitter = Retry(1, Backoff("fixed", 8.0, jitter=False))
    delays = [jitter.delay(f"job{n}", 1) for n in range(200)]
    assert all(4.0 <= delay <= 8.0 for delay in delays)
    assert min(delays) < 4.5
    assert max(delays) > 7.5
    assert jitter.delay("job1", 1) == delays[1]


CRON = """
max_runs = 2

[[start]]
cron = "0 * * * *"
offset = "-1d"
missed = "all"

[[job]]
type = "load"
task = "{yyyy}-{mm}-{dd}T{hh} {meta:cron}"
"""


def test_cron_starts_runs(tmp_path: Path) -> None:
    """Every instant is one run; what passed while nobody was there is made up for; more than max_runs queue."""
    flow = Flow(tmp_path, CRON, str(tmp_path / "s.db"))
    assert flow.engine.wake == START + 3600
    assert [task.value for task in flow.tick(3600.0)] == ["2025-12-31T01 2026-01-01T01:00:00Z"]
    flow.now += 3 * 3600
    flow.restart()
    flow.tick()
    flow.tick()
    assert [run["state"] for run in flow.runs()] == ["InProgress", "InProgress", "Queuing", "Queuing"]
    flow.done(*flow.all)
    assert [run["state"] for run in flow.runs()] == ["Completed", "Completed", "InProgress", "InProgress"]
    flow.finish()
    assert [task.meta["cron"] for task in flow.all] == [f"2026-01-01T0{hour}:00:00Z" for hour in (1, 2, 3, 4)]
    assert {run["state"] for run in flow.runs()} == {"Completed"}
    assert (flow.ends[0].value, flow.ends[0].result) == ("2026-01-01T01:00:00Z", "complete")
    flow.store.close()


def test_two_replicas_start_one_run(tmp_path: Path, state_url: str) -> None:
    """Both see the instant; there is one run and one task."""
    one, two = Flow(tmp_path, CRON, state_url), Flow(tmp_path, CRON, state_url)
    assert len([*one.tick(3600.0), *two.tick(3600.0)]) == 1
    assert len(two.runs()) == 1
    one.done(*one.all, *two.all)
    assert two.done(*one.all, *two.all) == ["repeated"]
    one.store.close()
    two.store.close()


def test_done_tasks_start_runs(tmp_path: Path) -> None:
    """A done task that matches starts a run, which knows it."""
    flow = Flow(
        tmp_path,
        """
        requests = false
        [[start]]
        done = { type = "file", value = "s3://in/*.csv*", meta = { size = "*" } }
        [[job]]
        type = "load"
        task = "{request.origin}?size={meta:size}&from={request.filename}"
        """,
    )

    assert flow.done(Task("file", "s3://in/a b.csv?x=1", id="f1", meta={"size": "7"})) == ["started"]
    assert flow.done(Task("file", "s3://in/a.txt", id="f2", meta={"size": "7"})) == ["unmatched"]
    assert flow.done(Task("file", "s3://in/a b.csv?x=1", id="f1", meta={"size": "7"})) == ["repeated"]
    assert flow.done(Task("file", "s3://in/c.csv", id="f3", meta={"size": "1"}), result="error") == ["unmatched"]
    assert flow.values() == ["load s3://in/a b.csv?size=7&from=a%20b.csv"]
    assert flow.request() == "dead"


def test_workflows_after_others(tmp_path: Path) -> None:
    """A workflow of another file begins after all, or any, of several have completed with the same key."""
    job = '[[job]]\ntype = "{}"\ntask = "{{meta:day}}"\n'
    flow = Flow(
        tmp_path,
        {
            "visits": job.format("v") + job.format("v2"),
            "clicks": job.format("c"),
            "report": '[[start]]\nafter = ["visits.v", "clicks"]\n' + job.format("r"),
            "first": '[[start]]\nafter = ["visits", "clicks"]\nwhen = "any"\n' + job.format("f"),
        },
    )
    flow.request("visits", id="d1", day="1")
    flow.request("clicks", id="d2", day="2")
    v, v2, c = flow.sent()
    flow.done(v)
    assert flow.values() == []
    flow.done(c)
    assert flow.values() == ["f 2"], "clicks with another key is no partner of visits"
    flow.request("clicks", id="d1", day="1")
    flow.done(*flow.sent())
    assert sorted(flow.values()) == ["f 1", "r 1"]
    flow.done(v2)
    assert flow.values() == []
    assert [run["workflow"] for run in flow.runs()].count("first") == 2


@pytest.mark.parametrize("late", [False, True], ids=["its run began before", "its run begins after"])
def test_jobs_of_other_workflows(tmp_path: Path, state_url: str, late: bool) -> None:
    """A job waits for jobs of another workflow's run with the same key, whichever of the runs begins first."""
    flow = Flow(
        tmp_path,
        {
            "visits": '[[job]]\ntype = "v"\n[[job]]\ntype = "v2"\n[[job]]\ntype = "v3"\ndepends_on = "v2"',
            "report": """
                [[job]]
                type = "prepare"
                [[job]]
                type = "report"
                depends_on = ["prepare", "visits.v"]
                [[job]]
                type = "either"
                depends_on = ["visits.v", "visits.v2"]
                when = "any"
                [[job]]
                type = "sorry"
                depends_on = "visits.v2"
                on = "failed"
                [[job]]
                type = "skipped"
                depends_on = "visits.v3"
                """,
        },
        state_url,
    )
    if not late:
        flow.request("report", id="k")
        flow.done(*flow.sent())
    flow.request("visits", id="other")
    flow.done(*flow.sent())
    assert flow.values() == ["v3"], "the run of another key is waited for by nobody"
    flow.request("visits", id="k")
    v, v2 = flow.sent()
    flow.done(v)
    flow.done(v2, result="error", msg="no")
    if late:
        flow.request("report", id="k")
        flow.done(*[task for task in flow.sent() if task.type == "prepare"])
    flow.finish()
    assert sorted(task.type for task in flow.all if task.meta["workflow"] == "report") == [
        "either",
        "prepare",
        "report",
        "sorry",
    ]
    flow.done(*flow.all)
    (report,) = flow.runs("report")
    assert report["state"] == "Completed"
    flow.store.close()


def test_what_ends_while_another_run_begins_counts_once(tmp_path: Path) -> None:
    """Both runs begin in one transaction, and a job of the one that has no tasks ends at once."""
    flow = Flow(
        tmp_path,
        {
            "a": '[[job]]\ntype = "none"\nfor_each = "{meta:nothing}"\n',
            "b": '[[job]]\ntype = "x"\n[[job]]\ntype = "y"\ndepends_on = ["a.none", "x"]\n',
        },
    )
    arrivals = [Arrival(Task(name, id="k", meta={"nothing": ""}), "k") for name in "ab"]
    assert [fate.name for fate in flow.call(lambda tx: flow.engine.requests(tx, arrivals, flow.now))] == ["started"] * 2
    assert flow.values() == ["x"]
    (run,) = flow.runs("b")
    jobs = flow.call(lambda tx: show_run(tx, run["run"]))["jobs"]
    assert {job["job"]: job["state"] for job in jobs} == {"x": "running", "y": "waiting"}


def test_a_run_of_an_older_file_still_gets_what_it_waits_for(tmp_path: Path) -> None:
    """What a run waits for is known after a restart though its file says something else now."""
    files = {"a": '[[job]]\ntype = "x"\n', "b": '[[job]]\ntype = "y"\ndepends_on = "a.x"\n'}
    flow = Flow(tmp_path, files, str(tmp_path / "s.db"))
    flow.request("b", id="k")
    (flow.folder / "b.toml").write_text('[[job]]\ntype = "z"\n')
    flow.restart()
    flow.request("a", id="k")
    assert flow.finish() == ["x", "y"]
    assert {run["state"] for run in flow.runs()} == {"Completed"}
    flow.store.close()


def test_a_workflow_in_a_workflow(tmp_path: Path) -> None:
    """A job that is a request for another workflow completes when that run ends."""
    flow = Flow(
        tmp_path,
        {
            "outer": """
                [[job]]
                type = "inner"
                topic = "requests"
                task = "x"
                [[job]]
                type = "b"
                depends_on = "inner"
                """,
            "inner": '[[job]]\ntype = "a"\ntask = "{request.value}"\n',
        },
    )
    flow.request("outer")
    (request,) = flow.sent()
    flow.request("inner", request.id or "", request.value, **request.meta)
    assert flow.finish() == ["a x"]
    (end,) = flow.ends
    assert flow.done(end) == ["completed"]
    assert flow.finish() == ["b"]
    assert {run["state"] for run in flow.runs()} == {"Completed"}


def test_a_workflow_in_a_workflow_is_tried_again(tmp_path: Path) -> None:
    """Its next attempt is a run of its own, whose end is that of the attempt."""
    flow = Flow(
        tmp_path,
        {
            "outer": '[[job]]\ntype = "inner"\ntopic = "requests"\nretry = { count = 1, delay = 0 }',
            "inner": '[[job]]\ntype = "a"',
        },
    )
    flow.request("outer")
    (request,) = flow.sent()
    flow.request("inner", request.id or "", **request.meta)
    flow.finish("a")
    assert flow.done(flow.ends[0], result="error") == ["retried"]
    (again,) = flow.sent()
    assert flow.request("inner", again.id or "", **again.meta) == "started"
    flow.finish()
    assert flow.done(flow.ends[1]) == ["completed"]
    assert [run["state"] for run in flow.runs("inner")] == ["Failed", "Completed"]


def test_cancel(tmp_path: Path) -> None:
    """Nothing more is started, what was not sent is taken back, and what reports later is passed over."""
    flow = Flow(tmp_path, STEPS)
    flow.request()
    left, right = flow.sent()
    flow.done(left, result="error")
    id = flow.run["run"]
    assert flow.call(lambda tx: flow.engine.cancel(tx, id))
    assert flow.run["state"] == "Cancelling"
    assert flow.tick(1000.0) == []
    assert flow.run["state"] == "Cancelled"
    assert set(flow.states.values()) == {"cancelled"}
    assert flow.done(right) == ["repeated"]
    assert not flow.call(lambda tx: flow.engine.cancel(tx, id))
    assert flow.ends[0].msg == "cancelled"


def test_runs_that_ended_are_forgotten_in_time(tmp_path: Path) -> None:
    """Only those that ended before the moment, with all that belongs to them."""
    flow = Flow(tmp_path, STEPS)
    flow.request(id="old")
    flow.finish()
    flow.now += 100
    flow.request(id="new")
    flow.finish()
    flow.request(id="open")
    assert flow.call(lambda tx: flow.engine.forget(tx, START)) == 0
    assert flow.call(lambda tx: flow.engine.forget(tx, START + 50)) == 1
    assert [run["key"] for run in flow.runs()] == ["new", "open"]
    assert flow.call(lambda tx: flow.engine.forget(tx, START + 500)) == 1
    flow.finish()
    assert [run["state"] for run in flow.runs()] == ["Completed"]
    assert flow.call(lambda tx: tx.execute(select(func.count()).select_from(tables.definitions)).scalar()) == 1
    flow.now += 1000
    assert flow.call(lambda tx: flow.engine.forget(tx, flow.now)) == 1
    left = [select(func.count()).select_from(table) for table in tables.TABLES.tables]
    assert flow.call(lambda tx: [tx.execute(count).scalar() for count in left]) == [0] * len(left)


def test_a_run_keeps_to_the_file_it_began_with(tmp_path: Path) -> None:
    """A changed file is for new runs; the old one goes on as it began, also after a restart."""
    flow = Flow(tmp_path, STEPS, str(tmp_path / "s.db"))
    flow.request(id="old")
    flow.done(*flow.sent(), rows="1")
    (flow.folder / "flow.toml").write_text('[[job]]\ntype = "other"\n')
    flow.restart()
    flow.request(id="new")
    assert sorted(flow.finish()) == ["join 1+1", "other", "tell did 1+1"]
    assert {run["state"] for run in flow.runs()} == {"Completed"}
    flow.store.close()


def test_what_the_bus_refuses_fails(tmp_path: Path) -> None:
    """A task the bus will never take is not tried again."""
    flow = Flow(tmp_path, STEPS)
    flow.request()
    left, _ = flow.store.call(lambda tx: outbox.due(tx, flow.now, 10))
    flow.call(lambda tx: flow.engine.refused(tx, [Refused(left.message, "too large")], flow.now))
    assert flow.run["error"] == "left: too large"


def test_wrong_requests(tmp_path: Path) -> None:
    """A request for no workflow, or with a moment that is none, is refused."""
    flow = Flow(tmp_path, STEPS)
    assert flow.request("flwo") == "dead"
    assert flow.request(cron="yesterday") == "dead"
    assert flow.runs() == []
