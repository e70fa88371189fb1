"""Every kind of taskmaster together on a virtual clock: what is made at which moment, and always the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.simulate import write_rules
from task.task import derive_id
from taskmasters.cron.rules import load_cron_rules
from tests.simulated import simulated, write

DAY = ("--from", "2026-01-01", "--to", "2026-01-02")
NOON = '[[rule]]\nid = "noon"\ncron = "0 12 * * *"\ntype = "load"\ntask = "s3://b/{yyyy}-{mm}-{dd}"\n'
CHAIN = '[[rule]]\nid = "then"\nmatch = { type = "load" }\ntype = "clean"\ntask = "{parent.value}"\n'


def result(kind: str, more: str) -> str:
    """A rule of results."""
    return f'[[rule]]\nmatch = {{ type = "{kind}" }}\n{more}\n'


def test_everything_completes_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without results a chain happens at one moment, with the ids that the rules give."""
    found = simulated(tmp_path, capfd, {"cron": NOON, "chain": CHAIN}, *DAY)

    load = derive_id("cron", "noon", "2026-01-01T12:00:00Z")
    assert found.story == [("2026-01-01T12:00:00Z", "load"), ("2026-01-01T12:00:00Z", "clean")]
    assert [line["message"]["id"] for line in found.lines] == [load, derive_id("on-done", "then", load, "0")]
    assert [line["message"]["created"] for line in found.lines] == ["2026-01-01T12:00:00.000Z"] * 2
    assert found.lines[1] == {
        "at": "2026-01-01T12:00:00.000Z",
        "topic": "clean",
        "by": "on-done",
        "file": str(tmp_path / "chain.toml"),
        "rule": "then",
        "parent": load,
        "result": "complete",
        "ended": "2026-01-01T12:00:00.000Z",
        "message": found.lines[1]["message"],
    }
    assert "2 tasks from 2026-01-01T00:00:00+00:00 until 2026-01-02T00:00:00+00:00; none of them was sent" in found.err
    assert found.code == 0


def test_from_is_in_it_and_to_is_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """So that two simulations that follow one another tell of each instant once, cron starts of workflows included."""
    flow = '[[start]]\ncron = "@daily"\n[[job]]\ntype = "job"\n'
    files = {"cron": '[[rule]]\ncron = "@daily"\ntype = "day"\n', "flow": flow}
    found = simulated(tmp_path, capfd, files, "--from", "2026-01-01", "--for", "2d")

    assert found.moments("day") == found.moments("job") == ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]


@pytest.mark.parametrize(
    ("cron", "day", "expected"),
    [
        # What docs/taskmasters.md says of Berlin, as moments in UTC.
        ("30 2 * * *", "2026-03-29", ["01:00"]),
        ("30 2 * * *", "2026-10-25", ["00:30"]),
        ("15,45 2 * * *", "2026-03-29", ["01:00"]),
        ("15,45 2 * * *", "2026-10-25", ["00:15", "00:45"]),
        ("0 2,3 * * *", "2026-03-29", ["01:00"]),
        ("0 2,3 * * *", "2026-10-25", ["00:00", "02:00"]),
        ("*/30 2 * * *", "2026-03-29", []),
        ("*/30 2 * * *", "2026-10-25", ["00:00", "00:30", "01:00", "01:30"]),
    ],
)
def test_clock_changes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], cron: str, day: str, expected: list[str]
) -> None:
    """Cron in Berlin, on the days on which the clock is set, fires at these moments."""
    rule = f'[[rule]]\ncron = "{cron}"\ntimezone = "Europe/Berlin"\ntype = "t"\n'
    found = simulated(tmp_path, capfd, {"cron": rule}, "--from", day, "--for", "23h", "--timezone", "Europe/Berlin")

    assert found.moments("t") == [f"{day}T{time}:00Z" for time in expected]


def test_months_of_clock_changes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """March in Berlin has 743 hours and October 745; a rule for each day fires each day, at its own time of the day."""
    rules = "".join(
        f'[[rule]]\ncron = "{cron}"\ntimezone = "Europe/Berlin"\ntype = "{kind}"\n'
        for cron, kind in (("@hourly", "hour"), ("0 5 * * *", "day"))
    )
    for month, following, hours, times in (
        ("2026-03", "2026-04", 743, {"04:00": 28, "03:00": 3}),
        ("2026-10", "2026-11", 745, {"03:00": 24, "04:00": 7}),
    ):
        span = ("--from", month, "--to", following, "--timezone", "Europe/Berlin")
        found = simulated(tmp_path, capfd, {"cron": rules}, *span)
        days = [at[11:16] for at in found.moments("day")]
        assert len(found.moments("hour")) == hours
        assert {time: days.count(time) for time in days} == times


def test_the_scheduler_of_the_application_decides(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Jitter included: instants and moments are those of the rules themselves."""
    rule = '[[rule]]\nid = "j"\ncron = "@hourly"\njitter = "10m"\ntype = "t"\n'
    found = simulated(tmp_path, capfd, {"cron": rule}, *DAY)

    (loaded,) = load_cron_rules(str(tmp_path / "cron.toml"))
    instants = [1767225600 + 3600 * hour for hour in range(24)]
    assert [line["message"]["id"] for line in found.lines] == [loaded.make(each, 0.0).id for each in instants]
    assert len({at for at, _ in found.story}) == 24
    assert found.story != [(at[:14] + "00:00Z", topic) for at, topic in found.story]


def test_retries_with_backoff(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A task that takes 5 m and fails three times is tried after 1, 1 and 2 m more, and then given up."""
    retry = '[[rule]]\nid = "r"\nmatch = { type = "load" }\nretries = 3\ndelay = "1m"\nbackoff = "fibonacci"\n'
    results = result("load", 'result = "error"\nduration = "5m"\nmsg = "no {parent.type}"')
    found = simulated(tmp_path, capfd, {"cron": NOON, "retry": retry, "results": results}, *DAY)

    clock = ["12:00", "12:06", "12:12", "12:19"]
    assert found.moments("load") == [f"2026-01-01T{each}:00Z" for each in clock]
    assert [line.get("note") for line in found.lines[:4]] == [None, "retry 1", "retry 2", "retry 3"]
    assert len({line["message"]["id"] for line in found.lines[:4]}) == 1
    assert found.story[4:] == [("2026-01-01T12:24:00Z", "load.dead"), ("2026-01-01T12:24:00Z", "retry-failed")]
    assert found.lines[4]["message"]["reason"] == "given up after 4 attempts: no load"
    assert [each["completed"] for each in found.lines[4]["message"]["tries"]] == [
        f"2026-01-01T12:{minute}:00.000Z" for minute in ("05", "11", "17", "24")
    ]


def test_the_third_attempt_succeeds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """``attempts = 2`` fails the first two; what follows is made when the third has completed."""
    retry = '[[rule]]\nmatch = { type = "load" }\nretries = 5\ndelay = "1h"\nbackoff = "fixed"\n'
    results = result("load", 'result = "error"\nattempts = 2') + result("load", 'duration = "10m"\nid = "late"')
    files = {"cron": NOON, "chain": CHAIN, "retry": retry, "results": results}
    found = simulated(tmp_path, capfd, files, *DAY)

    assert [at[11:16] + " " + topic for at, topic in found.story] == [
        *("12:00 load", "13:00 load", "14:00 load", "14:10 clean"),
    ]


def test_delay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Tasks wait with the delay taskmaster until run_at; one without becomes a dead letter there."""
    cron = (
        '[[rule]]\nid = "d"\ncron = "0 1 * * *"\ntype = "t"\ntopic = "delay"\nmeta = { run_at = "26h" }\n'
        '[[rule]]\nid = "at"\ncron = "0 2 1 1 *"\ntype = "u"\ntopic = "delay"\n'
        'meta = { run_at = "2026-01-02T10:00:00Z", run_topic = "there" }\n'
        '[[rule]]\nid = "x"\ncron = "0 3 1 1 *"\ntype = "x"\ntopic = "delay"\n'
    )
    found = simulated(tmp_path, capfd, {"cron": cron}, "--from", "2026-01-01", "--to", "2026-01-03")

    assert found.moments("t") == ["2026-01-02T03:00:00Z"]
    assert found.moments("there") == ["2026-01-02T10:00:00Z"]
    (dead,) = [line for line in found.lines if line["topic"] == "delay.dead"]
    assert dead["at"] == "2026-01-01T03:00:00.000Z"
    assert "it does not say when" in dead["note"]


def test_fan_in_waits_for_the_slowest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A join happens when the last has come; one whose part never comes is given up, and said at the end."""
    cron = "".join(f'[[rule]]\ncron = "0 12 * * *"\ntype = "{kind}"\n' for kind in ("a", "b"))
    chain = (
        '[[rule]]\nid = "both"\nall = [{ type = "a" }, { type = "b" }]\nby = "{meta:cron}"\ntype = "both"\n'
        'within = "3h"\n'
    )
    results = result("b", 'duration = "2h"\nattempts = 1')
    files = {"cron": cron, "chain": chain, "results": results}
    found = simulated(tmp_path, capfd, files, *DAY)
    assert found.moments("both") == ["2026-01-01T14:00:00Z"]

    found = simulated(tmp_path, capfd, files | {"results": result("b", 'duration = "4h"')}, *DAY)
    assert found.moments("both") == []
    assert "on-done both gave up waiting for all done tasks of '2026-01-01T12:00:00Z'" in found.err


FLOW = """
[[start]]
cron = "0 6 * * *"

[[job]]
type = "extract"
retry = { count = 1, delay = "10m", jitter = false }

[[job]]
type = "part"
for_each = "1..2"
depends_on = "extract"
task = "{item}"
on_failure = "POLICY"

[[job]]
type = "all"
depends_on = "part"
"""


def test_workflow_with_a_failing_step(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A job fails once and is tried again; a failed part stops the run or does not, as the policy says."""
    results = (
        result("extract", 'result = "error"\nattempts = 1\nduration = "5m"')
        + result("extract", 'id = "x"\nduration = "20m"')
        + '[[rule]]\nmatch = { type = "part", value = "2" }\nresult = "alert"\nduration = "1h"\nmsg = "broken"\n'
    )
    files = {"flow": FLOW.replace("POLICY", "continue"), "results": results}
    found = simulated(tmp_path, capfd, files, *DAY)

    # 6:00 + 5 m + 10 m until the second attempt, + 20 m to its end, + 1 h for the part that fails.
    expected = ["06:00 extract", "06:15 extract", "06:35 part", "06:35 part", "07:35 all", "07:35 done"]
    assert [f"{at[11:16]} {topic}" for at, topic in found.story] == expected
    assert [line["rule"] for line in found.lines] == [
        *("flow.extract", "flow.extract", "flow.part", "flow.part", "flow.all", "flow"),
    ]
    assert found.lines[-1]["result"] == "complete"

    found = simulated(tmp_path, capfd, files | {"flow": FLOW.replace("POLICY", "stop")}, *DAY)
    assert [f"{at[11:16]} {topic}" for at, topic in found.story] == [*expected[:4], expected[-1]]
    assert found.lines[-1]["result"] == "error"
    assert "broken" in found.lines[-1]["message"]["msg"]


def test_a_deadline_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A job whose done task never comes is late at its deadline, tried again, and then its run has failed."""
    flow = (
        '[[start]]\ncron = "0 6 * * *"\n[[job]]\ntype = "lost"\ndeadline = "1h"\nretry = { count = 1, delay = "1m" }\n'
    )
    files = {"flow": flow, "results": result("lost", 'result = "never"')}
    found = simulated(tmp_path, capfd, files, *DAY)

    assert [topic for _, topic in found.story] == ["lost", "lost", "done"]
    again, end = (line["at"] for line in found.lines[1:])
    assert "2026-01-01T07:00:30" <= again <= "2026-01-01T07:01:00.000Z"
    assert end == again.replace("T07", "T08")
    assert "ended" not in found.lines[0]


def test_all_of_them_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Cron asks for a run of a workflow, whose end on-done sees; its child waits with the delay taskmaster."""
    files = {
        "cron": '[[rule]]\ncron = "0 6 * * *"\ntype = "flow"\ntopic = "requests"\n',
        "flow": '[[job]]\ntype = "job"\n',
        "chain": '[[rule]]\nmatch = { type = "flow" }\ntype = "later"\ntopic = "delay"\nmeta = { run_at = "1h" }\n',
        "retry": '[[rule]]\nmatch = { type = "later" }\nretries = 1\ndelay = "1h"\njitter = 0\nunless = {}\n',
        "results": result("later", 'result = "error"\nattempts = 1') + result("job", 'duration = "30m"'),
    }
    found = simulated(tmp_path, capfd, files, *DAY)

    assert [f"{at[11:16]} {topic}" for at, topic in found.story] == [
        *("06:00 requests", "06:00 job", "06:30 done", "06:30 delay", "07:30 later", "08:30 later"),
    ]
    assert [line["by"] for line in found.lines] == ["cron", "workflow", "workflow", "on-done", "delay", "retry"]


def test_on_done_delay_and_problems(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A child with a delay reaches its topic later; a rule that fails makes a dead letter, told with the reason."""
    chain = CHAIN + 'delay = "90s"\n' + CHAIN.replace("then", "wrong").replace("{parent.value}", "{meta:nothing}")
    found = simulated(tmp_path, capfd, {"cron": NOON, "chain": chain}, *DAY)

    assert [f"{at[11:19]} {topic}" for at, topic in found.story] == [
        *("12:00:00 load", "12:00:00 done.dead", "12:01:30 clean"),
    ]
    assert found.lines[1]["note"] == "rule wrong: there is no value for {meta:nothing}"


def test_shares_are_of_the_ids(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A share of tasks is the same ones each time, about as many as said, and the same for every attempt."""
    files = {
        "cron": '[[rule]]\ncron = "* * * * *"\ntype = "t"\n',
        "retry": '[[rule]]\nmatch = { type = "t" }\nretries = 1\ndelay = "1s"\n',
        "results": result("t", 'result = "error"\nshare = "10%"'),
    }
    found = simulated(tmp_path, capfd, files, *DAY)

    first = [line["message"]["id"] for line in found.lines if line["by"] == "cron" and line["result"] == "error"]
    again = [line for line in found.lines if line["topic"] == "t" and line["by"] == "retry"]
    assert 100 < len(first) < 190
    assert [line["message"]["id"] for line in again] == first
    assert {line["result"] for line in again} == {"error"}


def test_results_by_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Results go by topic, job, value and meta; the first rule that fits decides; msg and meta are filled in."""
    cron = "".join(
        f'[[rule]]\nid = "{n}"\ncron = "0 12 * * *"\ntype = "t"\n{more}\n'
        for n, more in enumerate(('topic = "other"', 'job = "j"', 'task = "v-1"', 'meta = { k = "x" }', ""))
    )
    results = "".join(
        f"[[rule]]\nmatch = {{ {match} }}\nresult = {result!r}\nmsg = 'by {{parent.value}} {{id}}'\n"
        for match, result in (
            ('topic = "oth*"', "warn"),
            ('job = "j"', "error"),
            ('value = "v-*"', "alert"),
            ('meta = { k = "*" }', "reject"),
        )
    )
    chain = '[[rule]]\nmatch = { type = "t", result = "*" }\ntype = "saw"\ntask = "{parent.result} {parent.msg}"\n'
    chain += 'keep_meta = ["dead"]\n'
    found = simulated(tmp_path, capfd, {"cron": cron, "chain": chain, "results": results}, *DAY)

    assert [line["result"] for line in found.lines[:5]] == ["warn", "error", "alert", "reject", "complete"]
    ids = [line["message"]["id"] for line in found.lines[:5]]
    saw = [line["message"] for line in found.lines[5:]]
    assert [each["task"] for each in saw] == [
        *(f"warn by  {ids[0]}", f"error by  {ids[1]}", f"alert by v-1 {ids[2]}", f"error by  {ids[3]}", "complete "),
    ]
    assert [each["meta"].get("dead") for each in saw] == [None, None, None, "rejected", None]


def test_output_is_identical(tmp_path: Path) -> None:
    """Two processes, with different hashes of texts, print the same bytes."""
    files, results = write_rules(tmp_path)
    command = [sys.executable, "-m", "apps.cli.main", "simulate", *files, "--results", results, "--from", "2026-03-28"]
    outputs = [
        subprocess.run(
            [*command, "--for", "36h", *more],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=100,
        ).stdout
        for more in (["--json"], ["--summary", "day"])
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[2] == outputs[3]
    # Twelve rules by the hour, and thirteen by the day, all of them before noon.
    assert outputs[0].count(b'"by":"cron"') == 12 * 36 + 13 * 2


def test_nothing_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No state, no bus: the folder holds the rule files and nothing else."""
    monkeypatch.chdir(tmp_path)
    files = {"cron": NOON, "flow": FLOW.replace("POLICY", "stop"), "retry": "[[rule]]\nmatch = {}\nretries = 1\n"}
    assert simulated(tmp_path, capfd, files, *DAY).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cron.toml", "flow.toml", "retry.toml"]


def test_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A folder stands for the rule files in it, each of its kind."""
    (tmp_path / "rules").mkdir()
    write(tmp_path / "rules", {"cron": NOON, "chain": CHAIN})
    found = simulated(tmp_path, capfd, {}, str(tmp_path / "rules"), *DAY)
    assert [topic for _, topic in found.story] == ["load", "clean"]
