"""The batch taskmaster: which moments and rows it takes, and that nothing is sent before all is known to be right."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus import connect
from task.app import invoke
from task.errors import SettingsError
from task.exits import Exit
from taskmasters.batch.app import batch
from taskmasters.batch.moments import Step, moments, parse_hours, parse_moment
from taskmasters.batch.rows import read_rows
from taskmasters.zone import find_zone

BERLIN, PLAIN = find_zone("Europe/Berlin"), find_zone("UTC")
#: 2026-11-21T11:42:00Z
NOW = datetime(2026, 11, 21, 11, 42, tzinfo=UTC).timestamp()


def shown(instants: list[int], zone: str = "UTC") -> list[str]:
    """What the clock shows there."""
    return [datetime.fromtimestamp(each, find_zone(zone).info).strftime("%Y-%m-%dT%H%z") for each in instants]


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-03", "UTC", "2026-03-01T00:00:00+00:00"),
        ("2026-03-05", "UTC", "2026-03-05T00:00:00+00:00"),
        ("2026-03-05T07", "Europe/Berlin", "2026-03-05T06:00:00+00:00"),
        ("2026-03-05 07:30", "Europe/Berlin", "2026-03-05T06:30:00+00:00"),
        ("2026-03-05T07:30:15Z", "Europe/Berlin", "2026-03-05T07:30:15+00:00"),
        ("2026-03-05T07:30+02:00", "UTC", "2026-03-05T05:30:00+00:00"),
        ("now", "UTC", "2026-11-21T11:00:00+00:00"),
        ("-36h", "UTC", "2026-11-19T23:00:00+00:00"),
        ("+1d", "UTC", "2026-11-22T11:00:00+00:00"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:00:00+00:00"),
    ],
)
def test_moments_as_people_write_them(text: str, zone: str, expected: str) -> None:
    """A date is what the clock shows in the zone; a time the clock never shows is the end of the gap."""
    assert datetime.fromtimestamp(parse_moment(text, find_zone(zone), NOW), UTC).isoformat() == expected


@pytest.mark.parametrize("text", ["", "2026-13", "2026-02-30", "yesterday", "2026", "-soon", "0000-01-01"])
def test_what_is_no_moment(text: str) -> None:
    """Everything else is refused."""
    with pytest.raises(ValueError, match=r".+"):
        parse_moment(text, PLAIN, NOW)


@pytest.mark.parametrize(
    ("start", "end", "step", "expected"),
    [
        ("2026-01-30", "2026-02-01", Step.DAY, ["2026-01-30T00", "2026-01-31T00", "2026-02-01T00"]),
        ("2026-02-01", "2026-01-30", Step.DAY, ["2026-02-01T00", "2026-01-31T00", "2026-01-30T00"]),
        ("2026-01-31", "2026-05-01", Step.MONTH, ["2026-01-31T00", "2026-02-28T00", "2026-03-31T00", "2026-04-30T00"]),
        ("2026-03-31", "2026-01-01", Step.MONTH, ["2026-03-31T00", "2026-02-28T00", "2026-01-31T00"]),
        ("2026-01-01T05", "2026-01-20", Step.WEEK, ["2026-01-01T05", "2026-01-08T05", "2026-01-15T05"]),
        ("2026-01-01T22", "2026-01-02T00", Step.HOUR, ["2026-01-01T22", "2026-01-01T23", "2026-01-02T00"]),
        ("2026-01-01", "2026-01-01", Step.DAY, ["2026-01-01T00"]),
    ],
)
def test_ranges(start: str, end: str, step: Step, expected: list[str]) -> None:
    """Both ends are included, in either direction; a short month has its last day and the next one its own."""
    first, last = parse_moment(start, PLAIN, NOW), parse_moment(end, PLAIN, NOW)

    assert [text[:13] for text in shown(list(moments(first, last, step, PLAIN)))] == expected


def test_ranges_over_clock_changes() -> None:
    """Days keep the hour of the clock, hours are elapsed ones: one is left out in spring and one comes twice."""
    spring, autumn = (parse_moment(text, BERLIN, NOW) for text in ("2026-03-28T05", "2026-10-25"))

    assert shown(list(moments(spring, spring + 2 * 86400, Step.DAY, BERLIN)), "Europe/Berlin") == [
        "2026-03-28T05+0100",
        "2026-03-29T05+0200",
        "2026-03-30T05+0200",
    ]
    assert shown(list(moments(autumn, autumn + 10 * 3600, Step.HOUR, BERLIN, parse_hours("1-3"))), "Europe/Berlin") == [
        "2026-10-25T01+0200",
        "2026-10-25T02+0200",
        "2026-10-25T02+0100",
        "2026-10-25T03+0100",
    ]


@pytest.mark.parametrize("text", ["", "24", "a", "5-3", "-1", "1-"])
def test_what_is_no_hour(text: str) -> None:
    """Hours are 0 to 23."""
    with pytest.raises(ValueError, match="hour"):
        parse_hours(text)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "", "has no header"),
        ("rows.csv", "a,a\n", ":1: a column is named twice"),
        ("rows.csv", "a,b\n1,2\n1\n", ":3: has 1 values for 2 columns"),
        ("rows.csv", 'a\n"x"y\n', ":2: "),
        ("rows.jsonl", '{"a": 1}\n[1]\n', ":2: is not a JSON object"),
        ("rows.jsonl", "{", ":1: is not JSON"),
        ("rows.jsonl", '{"a": {}}', ":1: 'a' is a list or an object"),
        ("rows.txt", "", "must end in .csv"),
    ],
)
def test_wrong_rows(tmp_path: Path, name: str, content: str, said: str) -> None:
    """A file that is no table is refused with its line."""
    (tmp_path / name).write_text(content)
    with pytest.raises(SettingsError, match=name) as caught:
        list(read_rows(str(tmp_path / name)))
    assert said in str(caught.value)


def test_rows(tmp_path: Path) -> None:
    """Quoted commas and empty lines in CSV, numbers and nulls in JSON."""
    (tmp_path / "rows.csv").write_text('\ufeffid,name\n1,"a, b"\n\n2,c\n')
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "on": true, "no": null}\n\n{"id": "x"}\n')

    assert list(read_rows(str(tmp_path / "rows.csv"))) == [{"id": "1", "name": "a, b"}, {"id": "2", "name": "c"}]
    assert list(read_rows(str(tmp_path / "rows.jsonl"))) == [{"id": "1", "on": "true"}, {"id": "x"}]


def tasks(capfd: pytest.CaptureFixture[str], *args: str) -> list[dict[str, object]]:
    """What a preview prints."""
    assert invoke(batch, list(args)) == Exit.OK
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_a_preview_sends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Without --execute the tasks are printed, and stderr says how they would be sent."""
    args = [
        "load",
        "--task",
        "{yyyy}-{mm}-{dd}",
        "--from",
        "2026-01-01",
        "--to",
        "2026-01-02",
        "--bus",
        "nsq://127.0.0.1:1",
    ]
    assert invoke(batch, args) == Exit.OK

    out, err = capfd.readouterr()
    made = [json.loads(line) for line in out.splitlines()]
    assert [task["task"] for task in made] == ["2026-01-01", "2026-01-02"]
    assert [task["meta"]["cron"] for task in made] == ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]
    assert "2 tasks, none of them sent; --execute" in err


def test_every_row_at_every_moment(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The rows are read anew for each moment, and their values cannot break out of a query."""
    (tmp_path / "rows.csv").write_text("id\na&b\nc\n")
    args = ["load", "--task", "x?d={dd}&id={row:id}", "--from", "2026-01-01", "--for", "1d"]
    made = tasks(capfd, *args, "--rows", str(tmp_path / "rows.csv"))

    assert [task["task"] for task in made] == ["x?d=01&id=a%26b", "x?d=01&id=c", "x?d=02&id=a%26b", "x?d=02&id=c"]
    assert len({task["id"] for task in made}) == 4


def test_the_same_batch_makes_the_same_ids(capfd: pytest.CaptureFixture[str]) -> None:
    """Ids come from the id of the batch, the moment and the row alone; --skip leaves out what was sent."""
    args = ["load", "--from", "2026-01-01", "--for", "5d"]
    first = [task["id"] for task in tasks(capfd, *args, "--batch-id", "b")]

    assert [task["id"] for task in tasks(capfd, *args, "--batch-id", "b", "--skip", "4")] == first[4:]
    assert not {task["id"] for task in tasks(capfd, *args)} & set(first)


def test_a_cron_rule_backfilled(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A rule lends its templates, zone, offset and instants; backward they come in reverse."""
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nid = "weekly"\ncron = "0 5 * * 1"\ntype = "load"\njob = "j"\ntask = "{yyyy}-{mm}-{dd}"\n'
        'offset = "-1d"\nmeta = { a = "b" }\n'
    )
    made = tasks(capfd, "--rule", f"{rules}#weekly", "--from", "2026-01-20", "--to", "2026-01-01")

    assert [task["task"] for task in made] == ["2026-01-18", "2026-01-11", "2026-01-04"]
    assert {(task["type"], task["job"], task["meta"]["a"]) for task in made} == {("load", "j", "b")}  # type: ignore[index]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "which tasks?"),
        (["load"], "--from and --to, --rows"),
        (["load", "--to", "2026-01-01"], "go with --from"),
        (["load", "--from", "x"], "--from: 'x' is no moment"),
        (["load", "--from", "now", "--to", "now", "--for", "1d"], "say the same"),
        (["load", "--from", "now", "--by", "year"], "'year' is not one of"),
        (["load", "--from", "now", "--task", "{yyy}"], "did you mean 'yyyy'"),
        (["load", "--from", "now", "--meta", "a"], "not KEY=TEMPLATE"),
        (["load", "--from", "now", "--timezone", "Berlin"], "is not a time zone"),
        (["load", "--from", "now", "--hours", "25"], "no hour of the day"),
        (["load", "--rows", "none.csv"], "none.csv: cannot be read"),
        (["--rule", "none.toml", "--from", "now"], "none.toml: cannot be read"),
        (["a b", "--from", "now"], "a b"),
    ],
)
def test_wrong_use(capfd: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    """Each mistake is told, with exit code 2 and nothing on stdout."""
    assert invoke(batch, args) == Exit.USAGE

    out, err = capfd.readouterr()
    assert out == ""
    assert said in err


def test_nothing_is_sent_of_a_batch_with_a_wrong_row(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All tasks are made before the first is sent, so that a mistake in the last row is found in time."""
    (tmp_path / "rows.csv").write_text("id\n1\n2\n3,4\n")
    url = f"sqlite:{tmp_path}/work.db"
    args = ["load", "--task", "{row:id}", "--rows", str(tmp_path / "rows.csv"), "--bus", url, "--execute"]
    assert invoke(batch, args) == Exit.USAGE

    assert "rows.csv:4" in capfd.readouterr().err
    assert not (tmp_path / "work.db").exists()


@pytest.mark.no_faults("a command that runs once ends with what the bus told it, and is run again")
def test_execute_and_go_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--execute sends; when the bus refuses it says how many are confirmed and how to go on, and that works."""
    url = f"sqlite:{tmp_path}/work.db?max_size=150"
    (tmp_path / "rows.csv").write_text("id\n" + "1\n" * 700 + "x" * 200 + "\n")
    rows = ["load", "--task", "{row:id}", "--rows", str(tmp_path / "rows.csv"), "--batch-id", "b", "--execute"]
    assert invoke(batch, [*rows, "--bus", url]) == Exit.BUS

    err = capfd.readouterr().err
    assert "500 tasks were sent and confirmed" in err
    assert "--batch-id b --skip 500" in err
    assert invoke(batch, [*rows, "--bus", f"sqlite:{tmp_path}/work.db", "--skip", "500"]) == Exit.OK
    assert "201 tasks sent to load" in capfd.readouterr().err

    async def bodies() -> list[dict[str, object]]:
        async with connect(f"sqlite:{tmp_path}/work.db") as bus:
            return [json.loads(peeked.body) for peeked in await bus.peek("load", limit=1000)]

    assert len({task["id"] for task in asyncio.run(bodies())}) == 701
