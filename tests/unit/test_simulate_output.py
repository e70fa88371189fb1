"""How a simulation is told, and how one without end is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulated import simulated

DAY = ("--from", "2026-01-01", "--to", "2026-01-02")
CRON = (
    '[[rule]]\nid = "noon"\ncron = "0 12 * * *"\ntype = "load"\njob = "all"\ntask = "s3://b/{yyyy}"\n'
    '[[rule]]\nid = "often"\ncron = "@hourly"\ntype = "tick"\n'
)
RING = '[[rule]]\nid = "there"\nmatch = { type = "ping" }\ntype = "pong"\n'
BACK = '[[rule]]\nid = "back"\nmatch = { type = "pong" }\ntype = "ping"\n'
START = '[[rule]]\ncron = "0 12 * * *"\ntype = "ping"\n'


def test_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """People get a table, with the moments of their zone and what each task comes to."""
    results = '[[rule]]\nmatch = { type = "load" }\nresult = "error"\nduration = "90s"\n'
    files = {"cron": CRON, "results": results}
    found = simulated(tmp_path, capfd, files, *DAY, "--topic", "load", "--timezone", "Asia/Kolkata", json=False)

    head, line = found.out.splitlines()
    assert head.split() == ["at", "topic", "task", "value", "id", "comes", "to", "made", "by"]
    assert line.split()[:4] == ["2026-01-01T17:30:00+05:30", "load", "load:all", "s3://b/2026"]
    assert line.endswith("  error in 1m30s  cron noon")
    assert head.index("made by") == line.index("cron noon")
    assert "taskbus: 1 tasks" in found.err


def test_topic_filters_what_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--topic may be given several times and have patterns; what it leaves out happens all the same."""
    chain = '[[rule]]\nmatch = { type = "load" }\ntype = "after"\n'
    files = {"cron": CRON, "chain": chain}
    assert simulated(tmp_path, capfd, files, *DAY, "--topic", "af*").story == [("2026-01-01T12:00:00Z", "after")]
    assert len(simulated(tmp_path, capfd, files, *DAY, "--topic", "load", "--topic", "tick").story) == 25


def test_summary(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--summary counts by rule and topic, and by period."""
    span = ("--from", "2026-01-01", "--for", "2d")
    found = simulated(tmp_path, capfd, {"cron": CRON}, *span, "--summary", "all", json=False)
    assert [line.split() for line in found.out.splitlines()] == [
        ["count", "topic", "made", "by"],
        ["48", "tick", "cron", "often"],
        ["2", "load", "cron", "noon"],
    ]
    found = simulated(tmp_path, capfd, {"cron": CRON}, *span, "--summary", "day")
    assert [(line["period"], line["rule"], line["count"]) for line in found.lines] == [
        *(("2026-01-01", "often", 24), ("2026-01-01", "noon", 1)),
        *(("2026-01-02", "often", 24), ("2026-01-02", "noon", 1)),
    ]


def test_nothing_at_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A time in which nothing happens is an empty table."""
    rule = '[[rule]]\ncron = "0 0 29 2 *"\ntype = "leap"\n'
    found = simulated(tmp_path, capfd, {"cron": rule}, *DAY, json=False)
    assert found.code == 0
    assert len(found.out.splitlines()) == 1
    assert simulated(tmp_path, capfd, {"cron": rule}, *DAY, "--summary", "all", json=False).out == ""


def test_a_circle_at_one_moment(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rules of two files that make each other's tasks at once are named; no single file shows the circle."""
    files = {"cron": START, "there": RING, "back": BACK}
    found = simulated(tmp_path, capfd, files, *DAY)

    assert found.code == 1
    circles = ("on-done there → on-done back → on-done there", "on-done back → on-done there → on-done back")
    assert any(
        f"error: at 2026-01-01T12:00:00.000Z these go round without end: {circle}; break the circle" in found.err
        for circle in circles
    )
    assert "cron" not in found.err
    assert "Traceback" not in found.err


def test_a_circle_in_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With durations the circle is no mistake in itself; --limit ends it, and tells what goes round."""
    results = '[[rule]]\nmatch = { type = "p*ng" }\nduration = "1s"\n'
    files = {"cron": START, "there": RING, "back": BACK, "results": results}
    found = simulated(tmp_path, capfd, files, *DAY, "--limit", "500")

    assert found.code == 1
    assert "more than 500 tasks by 2026-01-01T12:08:20.000Z, which is the --limit" in found.err
    assert "the last came of what goes round without end: on-done " in found.err
    assert simulated(tmp_path, capfd, files, "--from", "2026-01-01", "--for", "12h").code == 0


def test_a_workflow_in_the_circle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A run whose end makes the request for the next is found too."""
    files = {
        "cron": '[[rule]]\ncron = "0 12 * * *"\ntype = "flow"\ntopic = "requests"\n',
        "flow": '[[job]]\nname = "step"\ntype = "j"\n',
        "chain": '[[rule]]\nid = "again"\nmatch = { type = "flow" }\ntype = "flow"\ntopic = "requests"\n'
        "allow_cycle = true\nmax_depth = 100000\n",
    }
    found = simulated(tmp_path, capfd, files, *DAY)

    assert found.code == 1
    for name in ("on-done again", "workflow flow.step", "workflow flow →"):
        assert name in found.err


def test_a_long_chain_is_no_circle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """1,200 rules that follow one another at one moment come to an end."""
    chain = "".join(f'[[rule]]\nmatch = {{ type = "t{n}" }}\ntype = "t{n + 1}"\n' for n in range(1200))
    cron = '[[rule]]\ncron = "0 12 * * *"\ntype = "t0"\n'
    assert len(simulated(tmp_path, capfd, {"cron": cron, "chain": chain}, *DAY).story) == 1201


def test_the_limit_without_a_circle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Too many tasks are told by who makes most of them; what came before is printed."""
    found = simulated(tmp_path, capfd, {"cron": CRON}, *DAY, "--limit", "20")
    assert found.code == 1
    said = "more than 20 tasks by 2026-01-01T19:00:00.000Z, which is the --limit; 20 of them were made by cron often"
    assert said in found.err
    assert len(found.lines) == 20


def test_a_value_that_is_missing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A result that cannot be told ends the simulation, naming file, rule and task."""
    results = '[[rule]]\nid = "r"\nmatch = { type = "load" }\nmsg = "{meta:nothing}"\n'
    found = simulated(tmp_path, capfd, {"cron": CRON, "results": results}, *DAY)
    assert found.code == 1
    assert f"{tmp_path}/results.toml: rule r: there is no value for {{meta:nothing}}, for the task" in found.err
