"""Workflow files: what they may say, and that every mistake is told with its place and what would be right."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from task.errors import SettingsError
from taskmasters.templates import JOB, META, TIME, Scope
from taskmasters.workflow.items import Item, read_item, read_source, write_item
from taskmasters.workflow.load import load_workflows, read_stored
from taskmasters.zone import find_zone

GOOD = '[[job]]\ntype = "a"\n'


def mistakes(path: Path) -> list[str]:
    """What is told of the files at ``path``, each beginning with the file's name."""
    with pytest.raises(SettingsError) as caught:
        load_workflows(str(path))
    lines = str(caught.value).splitlines()
    if len(lines) > 1:
        assert lines.pop(0) == f"{len(lines)} mistakes:"
    return [line.replace(f"{path.parent if path.is_file() else path}/", "") for line in lines]


def wrong(folder: Path, text: str) -> list[str]:
    path = folder / "flow.toml"
    path.write_text(text)
    return mistakes(path)


def test_every_mistake_is_told(tmp_path: Path) -> None:
    """All at once, with file, line, key and the nearest right one."""
    text = """\
timezone = "Europe/Berln"
max_runs = 0
color = "red"

[[start]]
cron = "61 * * * *"

[[start]]
cron = "@daily"
done = { type = "x" }

[[start]]
done = { tipe = "x" }

[[job]]
type = "load"
task = "{yyy}"
retry = { cuont = 3, delay = "10x" }
on_failure = "stp"

[[job]]
name = "a b"
type = "sum"
depends_on = "loud"
when = "some"
if = { load = { result = "complet" } }

[[job]]
type = "each"
each = "load"
for_each = "1..3"
task = "{job.load.valu}"
deadline = "0s"
meta = { run = "x" }

[[job]]
type = "undo"
on = "failed"
compensate = { task = "x" }
for_each = "5..1"
"""
    assert wrong(tmp_path, text) == [
        "flow.toml:1: timezone: 'Europe/Berln' is not a time zone; did you mean 'Europe/Berlin'?",
        "flow.toml:2: max_runs: must be a whole number of at least 1",
        "flow.toml:3: color: unknown key; known: enabled, id, job, keep_meta, max_runs, requests, start, step, "
        "timezone",
        "flow.toml:6: start[0].cron: '61 * * * *': '61' does not fit the minute: 0 to 59, lists 1,2, ranges 1-5, "
        "steps */5",
        "flow.toml:8: start[1]: a start has one of cron, done, after, not 2",
        "flow.toml:13: start[2].done.tipe: unknown key; did you mean 'type'?",
        "flow.toml:17: job[0].task: unknown token {yyy}; did you mean 'yyyy'?",
        "flow.toml:18: job[0].retry: the rule has no 'count': how often the task is tried again",
        "flow.toml:18: job[0].retry.delay: '10x' is not a duration; write seconds or like 250ms, 90s, 1h30m, 2d",
        "flow.toml:18: job[0].retry.cuont: unknown key; did you mean 'count'?",
        "flow.toml:19: job[0].on_failure: 'stp' is none of stop, continue, compensate; did you mean 'stop'?",
        "flow.toml:22: job[1].name: 'a b' must be letters, digits, - and _",
        "flow.toml:24: job[1].depends_on: there is no job 'loud'; did you mean 'load'?",
        "flow.toml:25: job[1].when: 'some' is none of all, any",
        "flow.toml:26: job[1].if.load.result: 'complet' is not a result; did you mean 'complete'?",
        "flow.toml:31: job[2].for_each: means nothing beside each, which is what the job depends on",
        "flow.toml:32: job[2].task: {job.load.valu}: a job has no 'valu'; did you mean 'value'?",
        "flow.toml:33: job[2].deadline: must be longer than 0s",
        "flow.toml:34: job[2].meta.run: is set by the taskmaster: choose another key",
        "flow.toml:38: job[3].on: means nothing without depends_on",
        "flow.toml:40: job[3].for_each: '5..1' runs backwards",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "flow.toml: there is no [[job]] and no [[step]] in it"),
        ("[[jobs]]\n", "flow.toml:1: jobs: unknown key; did you mean 'job'?"),
        (
            "job = 3\n",
            "flow.toml:1: job: must be a list of tables: begin each with [[job]] (in YAML, `job:` and a list)",
        ),
        ("[[job]]\n", "flow.toml:1: job[0]: the rule has no 'type'"),
        ('[[job]]\ntype = "a/b"\ntopic = "x"\n', "flow.toml:1: job[0]: the rule has no 'name': 'a/b' cannot be one"),
        (GOOD + GOOD, "flow.toml:3: job[1].name: 'a' is taken already: give each job and step its own name"),
        (
            GOOD + 'name = "request"\n',
            "flow.toml:3: job[0].name: 'request' is the name of the task that started the run",
        ),
        ("[[step]]\n", "flow.toml:1: step[0]: the rule has no 'job': begin each of its jobs with [[step.job]]"),
        (
            "".join(f'[[step]]\nname = "s"\n[[step.job]]\ntype = "{kind}"\n' for kind in "ab"),
            "flow.toml:6: step[1].name: 's' is taken already",
        ),
        (
            GOOD + 'depends_on = "b"\n[[job]]\ntype = "b"\neach = "a"\n',
            "flow.toml:1: job[0]: waits for itself: a → b → a",
        ),
        (GOOD + 'each = "c"\n', "flow.toml:3: job[0].each: there is no job 'c'; known: a"),
        (
            GOOD + '[[job]]\ntype = "b"\ntask = "{job.a.msg}"\n',
            "flow.toml:5: job[1].task: 'a' does not come before this job: name it in depends_on",
        ),
        (GOOD + 'if.b.msg = "x"\n', "flow.toml:3: job[0].if: there is no job 'b'; known: a"),
        (GOOD + 'meta = { x = "{job.b.msg}" }\n', "flow.toml:3: job[0].meta.x: there is no job 'b'; known: a"),
        (GOOD + 'task = "{item}"\n', "flow.toml:3: job[0].task: {item} has no meaning here without for_each"),
        (
            GOOD + '[[job]]\ntype = "b"\neach = "a"\ntask = "{item}"\n',
            "flow.toml:6: job[1].task: uses an item, and 'a' has none: it has no for_each",
        ),
        (
            GOOD + 'retry = { count = 1, delay = "1h", max_delay = "1m" }\n',
            "flow.toml:3: job[0].retry.max_delay: must not be shorter than delay",
        ),
        (GOOD + "retry = 1001\n", "flow.toml:3: job[0].retry: must be at most 1000"),
        (GOOD + 'compensate = { type = "c", each = "a" }\n', "flow.toml:3: job[0].compensate.each: unknown key"),
        (
            GOOD + '[[job]]\ntype = "b"\ndepends_on = "a"\ncompensate = { type = "c", task = "{job.a.msg}" }\n',
            "flow.toml:6: job[1].compensate.task: a compensation knows the results of 'b' only, not 'a'",
        ),
        (GOOD + 'for_each = { fil = "x" }\n', "flow.toml:3: job[0].for_each: unknown key 'fil'; did you mean 'file'?"),
        (GOOD + 'for_each = { file = "x.txt" }\n', "flow.toml:3: job[0].for_each: 'x.txt' must end in .csv"),
        (GOOD + 'for_each = { times = "-1d", by = "year" }\n', "flow.toml:3: job[0].for_each: by: 'year' is none of"),
        (GOOD + 'for_each = { times = "-90000d" }\n', "flow.toml:3: job[0].for_each: times reaches further than"),
        (GOOD + "for_each = 5\n", "flow.toml:3: job[0].for_each: must be a list of texts or of tables, a range"),
        ('id = "a b"\n' + GOOD, "flow.toml:1: id: 'a b' must be letters, digits, - and _"),
        ('[[start]]\nafter = "x"\n' + GOOD, "flow.toml:2: start[0].after: there is no workflow 'x'; known: flow"),
        ('[[start]]\nafter = "flow.b"\n' + GOOD, "flow.toml:2: start[0].after: 'flow' has no job 'b'; known: a"),
        (
            '[[start]]\ndone.type = ["x", "a*"]\n' + GOOD,
            "flow.toml:1: start[0]: what its own job 'a' makes starts it again, without end",
        ),
    ],
)
def test_a_mistake(tmp_path: Path, text: str, told: str) -> None:
    """One mistake at a time."""
    (found,) = wrong(tmp_path, text)
    assert found.startswith(told), found


def test_mistakes_of_a_folder(tmp_path: Path) -> None:
    """Every file in it is read; mistakes are told for all of them together; what is no rule file is passed over."""
    (tmp_path / "more").mkdir()
    (tmp_path / "README.md").write_text("no workflow")
    (tmp_path / "a.toml").write_text('id = "x"\n' + GOOD)
    (tmp_path / "b.toml").write_text('id = "x"\n' + GOOD)
    (tmp_path / "more" / "c.yaml").write_text("job:\n  - type: c\n    taks: no\n")
    (tmp_path / "d.toml").write_text("[[job]\n")
    found = mistakes(tmp_path)
    assert found[0].startswith("d.toml:1: ")
    assert found[1:] == [
        "b.toml:1: id: a.toml is the workflow 'x' too: give each an id of its own",
        "more/c.yaml:3: job[0].taks: unknown key; did you mean 'task'?",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=r"no file in it whose name ends in .toml"):
        load_workflows(str(tmp_path / "empty"))


def test_jobs_of_workflows_that_wait_for_each_other(tmp_path: Path) -> None:
    """Names of jobs in other files are checked, and circles through several files are found."""
    (tmp_path / "a.toml").write_text(GOOD + 'depends_on = ["b.bb", "c.x"]\n')
    (tmp_path / "b.toml").write_text('[[job]]\ntype = "b"\ndepends_on = "a.a"\n')
    assert mistakes(tmp_path) == [
        "a.toml:3: job[0].depends_on: 'b' has no job 'bb'; did you mean 'b'?",
        "a.toml:3: job[0].depends_on: there is no workflow 'c'; known: a, b",
    ]
    (tmp_path / "a.toml").write_text(GOOD + 'depends_on = "b.b"\n')
    assert mistakes(tmp_path) == ["a.toml:3: job[0].depends_on: waits for itself: a.a → b.b → a.a"]


def test_cycles_of_workflows(tmp_path: Path) -> None:
    """Workflows that start each other through done tasks would go on without end."""
    (tmp_path / "a.toml").write_text('[[start]]\ndone.type = "y"\n[[job]]\ntype = "x"\n')
    (tmp_path / "b.toml").write_text('[[start]]\ndone.type = "a"\n[[job]]\ntype = "y"\n')
    (found,) = mistakes(tmp_path)
    assert "each starts the next, without end: a → b → a" in found


def test_a_stored_workflow_is_the_same(tmp_path: Path) -> None:
    """What the state keeps reads as what the file says, YAML too."""
    (tmp_path / "w.yaml").write_text(
        "start:\n  - cron: '@daily'\njob:\n  - type: a\n    for_each: [1, 2]\n    retry: 2\n"
        "  - {type: b, each: a, deadline: 90, compensate: {type: c}}\n"
    )
    (one,) = load_workflows(str(tmp_path / "w.yaml"))
    again = read_stored(one.body)
    assert again.hash == one.hash
    assert [str(node.type) for node in (*again.nodes.values(), *again.undo.values())] == ["a", "b", "c"]
    assert again.nodes["b"].deadline == 90.0


TOKENS = frozenset([*TIME, *META, JOB])


def items(given: object, folder: Path, when: datetime | None = None) -> list[Item]:
    scope = Scope("", when, {"day": "7"})
    zone = find_zone(str(when.tzinfo) if when is not None else "UTC")
    return list(read_source(given, TOKENS, folder, zone).items(scope))


def test_items_of_lists(tmp_path: Path) -> None:
    """Texts, ranges, templates and rows."""
    assert [item.text for item in items([1, "b"], tmp_path)] == ["1", "b"]
    assert [item.text for item in items("08..10", tmp_path)] == ["08", "09", "10"]
    assert [item.text for item in items("{meta:day}, 8", tmp_path)] == ["7", "8"]
    rows = items([{"k": "a", "j": 1}, {"k": "b", "j": True}], tmp_path)
    assert [dict(item.row) for item in rows] == [{"k": "a", "j": "1"}, {"k": "b", "j": "true"}]


def test_items_of_files(tmp_path: Path) -> None:
    """Rows of CSV with a head, and JSON lines; the name of the file is a template."""
    (tmp_path / "7.csv").write_text('name,size\r\n"a, b",1\r\nc,2\r\n')
    (tmp_path / "rows.jsonl").write_text('{"name": "x", "n": null, "size": 1}\n\n{"name": "y"}\n')
    assert [dict(item.row) for item in items({"file": "{meta:day}.csv"}, tmp_path)] == [
        {"name": "a, b", "size": "1"},
        {"name": "c", "size": "2"},
    ]
    assert [dict(item.row) for item in items({"file": "rows.jsonl"}, tmp_path)] == [
        {"name": "x", "size": "1"},
        {"name": "y"},
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", b"a,b\n1\n", r"a.csv:2: has 1 values for 2 columns"),
        ("a.csv", b'a,b\n"1,2\n', r"a.csv:\d: unexpected end"),
        ("a.jsonl", b'{"a": 1}\n{\n', r"a.jsonl:2: is not JSON"),
        ("a.jsonl", b"[1]\n", r"a.jsonl:1: is not a JSON object"),
        ("a.jsonl", b'{"a": "\xff"}\n', r"a.jsonl: is not UTF-8"),
        ("a.jsonl", None, r"a.jsonl: cannot be read: No such file"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, text: bytes | None, told: str) -> None:
    """What cannot be read is told with file and line."""
    if text is not None:
        (tmp_path / name).write_bytes(text)
    with pytest.raises(SettingsError, match=told):
        items({"file": name}, tmp_path)


def test_items_of_times(tmp_path: Path) -> None:
    """Hours, days, weeks and months from the moment of the run, forward and back, across a change of the clocks."""
    from zoneinfo import ZoneInfo

    when = datetime(2026, 3, 31, 12, 34, tzinfo=UTC)

    def texts(times: str, by: str, moment: datetime = when) -> list[str]:
        return [item.text for item in items({"times": times, "by": by}, tmp_path, moment)]

    assert texts("-2h", "hour") == [f"2026-03-31T{hour}:00:00+00:00" for hour in (12, 11, 10)]
    assert texts("14d", "week") == [f"2026-{day}T12:00:00+00:00" for day in ("03-31", "04-07", "04-14")]
    assert texts("-60d", "month") == [f"2026-{day}T12:00:00+00:00" for day in ("03-31", "02-28", "01-31")]
    berlin = datetime(2026, 3, 28, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert len(texts("24h", "hour", berlin)) == 25
    assert texts("48h", "day", berlin)[::2] == ["2026-03-28T02:00:00+01:00", "2026-03-30T02:00:00+02:00"]
    with pytest.raises(ValueError, match="no moment"):
        items({"times": "1d"}, tmp_path)


def test_items_are_kept() -> None:
    """An item read from the state is the one that was written."""
    for item in (Item(), Item("a"), Item("a", {"k": "v"}), Item("t", when=1.5)):
        assert read_item(write_item(item)) == item
