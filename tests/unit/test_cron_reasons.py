"""Why each time a rule names fires or does not."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from task.app import invoke
from task.exits import Exit
from taskmasters.cron.app import cron
from taskmasters.cron.reasons import explain_last, explain_next
from taskmasters.cron.rules import CronRule, load_cron_rules
from taskmasters.cron.schedule import parse_schedule
from taskmasters.cron.state import SqliteState
from taskmasters.zone import find_zone


def moment(text: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def load(folder: Path, cron: str, more: str = "") -> CronRule:
    """A rule in Berlin."""
    path = folder / "rules.toml"
    path.write_text(f'[[rule]]\ncron = "{cron}"\ntype = "t"\ntimezone = "Europe/Berlin"\n{more}\n')
    return load_cron_rules(str(path))[0]


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        (
            "15,45 2 * * *",
            "2026-03-28T12:00",
            [
                "03-29 02:15 fires at 2026-03-29T01:00:00Z, the end of the gap: the clock never shows this",
                "03-29 02:45 does not fire: the clock never shows this",
                "03-30 02:15 fires at 2026-03-30T00:15:00Z",
            ],
        ),
        (
            "0 2,3 * * *",
            "2026-03-28T12:00",
            [
                "03-29 02:00 fires at 2026-03-29T01:00:00Z, the end of the gap: the clock never shows this",
                "03-29 03:00 does not fire again: the end of the gap before it is this very moment",
            ],
        ),
        ("*/30 2 29 3 *", "2026-03-28T12:00", ["03-29 02:00 does not fire: the clock never shows this"]),
        (
            "30 2 * * *",
            "2026-10-24T12:00",
            ["10-25 02:30 fires at 2026-10-25T00:30:00Z, the first of the two times the clock shows this"],
        ),
        (
            "*/30 2 * * *",
            "2026-10-24T12:00",
            ["10-25 02:00 fires at 2026-10-25T00:00:00Z and 2026-10-25T01:00:00Z: the clock shows this twice"],
        ),
    ],
)
def test_clock_changes(tmp_path: Path, cron: str, start: str, expected: list[str]) -> None:
    """What the clock leaves out or shows twice is explained."""
    lines = explain_next(load(tmp_path, cron), moment(start), len(expected))

    assert [line[5:16] + line[line.index("  ") + 1 :] for line in lines] == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "UTC", "Asia/Tehran"])
@pytest.mark.parametrize(
    "cron", ["*/20 * * * *", "30 1,2,3 * * *", "0 0 * * *", "5 */3 * * *", "@every 5h", "0 0 0 1 * *"]
)
def test_what_is_said_is_what_happens(zone: str, cron: str) -> None:
    """The moments said to fire are those that the scheduler fires, each once and in order."""
    schedule = parse_schedule(cron, find_zone(zone))
    start = int(moment("2018-01-01"))
    said = sorted(fired for shown in islice(schedule.shown(start), 2000) for fired in shown.fires)
    found: list[int] = []
    after = start
    while len(found) < len(said):
        after = schedule.next(after) or 0
        found.append(after)

    # The last ones said may come before the second showing of an earlier one.
    assert said[:-2] == found[:-2]
    assert len(said) > 300


@pytest.mark.parametrize(
    ("more", "fired", "expected"),
    [
        ("", None, ["not known to the state", "not known to the state", "not known to the state"]),
        ("", "2026-07-01T10:00", ["dealt with", "only the latest is", "made up for at the next start"]),
        ('missed = "all"', "2026-07-01T10:00", ["dealt with", "made up for at", "made up for at the next start"]),
        ('missed = "all"\nwindow = "90m"', "2026-07-01T09:00", ["older than 1h30m", "at the next", "at the next"]),
        ('missed = "skip"', "2026-07-01T10:00", ["dealt with", "missed = skip", "missed = skip"]),
        ("enabled = false", None, ["disabled", "disabled", "disabled"]),
    ],
)
def test_the_past(tmp_path: Path, more: str, fired: str | None, expected: list[str]) -> None:
    """What passed is what the state says was dealt with, or missed, by the policy of the rule."""
    known = None if fired is None else int(moment(fired))
    lines = list(explain_last(load(tmp_path, "0 * * * *", more), moment("2026-07-01T12:10"), 3, known))

    assert len(lines) == 3
    for line, hour, said in zip(lines, ("12:00", "13:00", "14:00"), expected, strict=True):
        assert line.startswith(f"2026-07-01 {hour}")
        assert said in line


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--explain looks forward, and with a negative number backward, into the state file if there is one."""
    rule = load(tmp_path, "0 0 1 1 *")
    state = SqliteState(str(tmp_path / "rules.state.db"))
    state.write([("t", rule.schedule.text, 2**40)])
    state.close()
    path = str(tmp_path / "rules.toml")
    assert invoke(cron, [path, "--explain", "2"]) == Exit.OK
    forward = capfd.readouterr().out.splitlines()
    assert invoke(cron, [path, "--explain", "-2"]) == Exit.OK
    backward = capfd.readouterr().out.splitlines()

    assert forward[0] == backward[0] == "t"
    assert len(forward) == len(backward) == 3
    assert all("dealt with, says the state" in line for line in backward[1:])
