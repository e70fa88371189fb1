"""A batch through a workflow: one run for each moment and row, whole or from one of its jobs on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from task.app import invoke
from task.codec import decode
from task.exits import Exit
from taskmasters.batch.app import batch
from tests.flows import Flow

FLOW = """
timezone = "Europe/Berlin"
[[start]]
cron = "0 5 * * *"
offset = "-1d"
[[job]]
type = "fetch"
task = "s3://raw/{yyyy}/{mm}/{dd}?shop={meta:shop|default:all}&by={request.value}"
[[job]]
type = "load"
depends_on = "fetch"
for_each = ["a", "b"]
task = "s3://in/{yyyy}/{mm}/{dd}?t={item}"
"""


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    """The workflow, in the hands of a test."""
    return Flow(tmp_path, FLOW)


def printed(capfd: pytest.CaptureFixture[str], flow: Flow, *args: str) -> list[dict[str, Any]]:
    """What a preview of a batch of it prints."""
    assert invoke(batch, ["--workflow", str(flow.folder / "flow.toml"), *args]) == Exit.OK
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def asked(flow: Flow, requests: list[dict[str, Any]]) -> list[str]:
    """The values of the tasks these requests lead to."""
    for each in requests:
        task = decode(json.dumps(each).encode())
        assert flow.request(task.type, task.id or "", task.value, **task.meta) == "started"
    return flow.finish()


def test_the_runs_cron_would_have_started(capfd: pytest.CaptureFixture[str], flow: Flow) -> None:
    """Its instants, zone and offset: over a clock change, backward too, the tasks are those that cron's runs make."""
    requests = printed(capfd, flow, "--from", "2026-03-30", "--to", "2026-03-28")
    assert [each["meta"]["cron"] for each in requests] == ["2026-03-29T03:00:00Z", "2026-03-28T04:00:00Z"]
    made = asked(flow, requests)
    assert sorted(made) == sorted(
        text
        for day in ("27", "28")
        for text in (
            f"fetch s3://raw/2026/03/{day}?shop=all&by=",
            f"load s3://in/2026/03/{day}?t=a",
            f"load s3://in/2026/03/{day}?t=b",
        )
    )


def test_from_a_phase_on(capfd: pytest.CaptureFixture[str], flow: Flow) -> None:
    """``--phase`` begins with that job; ``--tasks`` shows what the runs make, which is what they then make."""
    args = ("--phase", "load", "--from", "2026-01-31", "--to", "2026-03-01", "--by", "month")
    shown = [f"{task['type']} {task['task']}" for task in printed(capfd, flow, *args, "--tasks")]
    # Of a step that is given the moment is that of the step, moved by the offset, as of cron.
    assert [text for text in shown if text.endswith("a")] == [
        "load s3://in/2026/01/30?t=a",
        "load s3://in/2026/02/27?t=a",
    ]
    assert asked(flow, printed(capfd, flow, *args)) == shown


def test_rows_become_meta(capfd: pytest.CaptureFixture[str], flow: Flow, tmp_path: Path) -> None:
    """A column is the meta that templates of the workflow read, as with flowlord; the value is that of the request."""
    (tmp_path / "shops.csv").write_text("shop\na&b\nc\n")
    requests = printed(
        capfd,
        flow,
        "--rows",
        str(tmp_path / "shops.csv"),
        "--from",
        "2026-01-02",
        "--by",
        "day",
        "--task",
        "x{row:shop}",
    )
    made = [text for text in asked(flow, requests) if text.startswith("fetch")]
    assert made == [
        "fetch s3://raw/2026/01/01?shop=a%26b&by=xa%26b",
        "fetch s3://raw/2026/01/01?shop=c&by=xc",
    ]


def test_sent_twice_is_once(capfd: pytest.CaptureFixture[str], flow: Flow) -> None:
    """The same batch id asks for the same runs."""
    args = ("--from", "2026-01-01", "--for", "3d", "--batch-id", "b")
    first, second = printed(capfd, flow, *args), printed(capfd, flow, *args)
    assert [each["id"] for each in first] == [each["id"] for each in second]
    asked(flow, first)
    task = decode(json.dumps(second[0]).encode())
    assert flow.request(task.type, task.id or "", **task.meta) == "repeated"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--phase", "laod", "--from", "now"],
            "--phase: the workflow flow has no job or step 'laod'; did you mean 'load'",
        ),
        (["load", "--from", "now"], "--workflow says what is made: TYPE has no place beside it"),
        (["--job", "x", "--from", "now"], "--job has no place"),
        (["--rule", "x", "--from", "now"], "--rule and --workflow both"),
        ([], "which tasks? Give --from and --to, --rows"),
        (["--from", "now", "--every", "2"], "--every goes with --by"),
        (["--from", "now", "--by", "day", "--every", "0"], "'0' is no number of steps"),
        (["--from", "now", "--tasks", "--execute"], "give one of them"),
        (["--from", "now", "--by", "day", "--rows", "ROWS"], "the column 'run' would be"),
    ],
)
def test_wrong_use(capfd: pytest.CaptureFixture[str], flow: Flow, tmp_path: Path, args: list[str], said: str) -> None:
    """Each mistake is told, with exit code 2 and nothing on stdout."""
    (tmp_path / "rows.csv").write_text("run\n1\n")
    given = [str(tmp_path / "rows.csv") if arg == "ROWS" else arg for arg in args]
    assert invoke(batch, ["--workflow", str(flow.folder / "flow.toml"), *given]) == Exit.USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert said in err


@pytest.mark.parametrize(("name", "said"), [("", "has 2 workflows: write"), ("#flwo", "did you mean 'flow'?")])
def test_one_of_several(capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str, said: str) -> None:
    """A folder of workflows needs a name; a name that is none has the nearest one told."""
    flow = Flow(tmp_path, {"flow": FLOW, "other": '[[job]]\ntype = "x"\n'})
    assert invoke(batch, ["--workflow", f"{flow.folder}{name}", "--from", "now"]) == Exit.USAGE
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"), [("requests = false", "takes no requests"), ("enabled = false", "is set aside")]
)
def test_one_that_takes_no_requests(capfd: pytest.CaptureFixture[str], tmp_path: Path, line: str, said: str) -> None:
    """It is told before anything is sent, not after."""
    flow = Flow(tmp_path, f"{line}\n{FLOW}")
    assert invoke(batch, ["--workflow", str(flow.folder), "--from", "now"]) == Exit.USAGE
    assert said in capfd.readouterr().err


def test_without_a_workflow(capfd: pytest.CaptureFixture[str]) -> None:
    """Its options mean nothing without one."""
    for args, said in ((["--phase", "x"], "--phase goes with --workflow"), (["--tasks"], "--workflow")):
        assert invoke(batch, ["load", "--from", "now", *args]) == Exit.USAGE
        assert said in capfd.readouterr().err
