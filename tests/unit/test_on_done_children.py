"""The children of a done task: which rules match, and what they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from task.codec import decode
from task.outcome import Result
from task.task import Dialect, Task
from taskmasters.on_done.children import Children, Family
from taskmasters.on_done.rules import load_on_done_rules

#: The moment everything is made.
NOW = 1767225600.0


def family(folder: Path, text: str) -> Family:
    """The rules of a file with this text."""
    path = folder / "rules.toml"
    path.write_text(text)
    return Family(load_on_done_rules(str(path)))


def ask(folder: Path, text: str, result: Result = Result.COMPLETE, parent: Task | None = None) -> Children:
    """What these rules make of a done task."""
    parent = parent or Task("a", "v", id="p")
    return family(folder, text).children(parent, parent.id or "p", result, NOW)


def tasks(children: Children) -> list[Task]:
    """The tasks that would be sent."""
    assert not children.problems, children.problems
    return [decode(child.body) for child in children.found]


RULE = '[[rule]]\nmatch = { type = "a" }\ntype = "b"\n'


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ('type = "load"', True),
        ('type = "loa"', False),
        ('type = "lo*"', True),
        ('type = ["x", "load"]', True),
        ('type = ["x", "y"]', False),
        ('job = "daily"', True),
        ('job = "hourly"', False),
        ('job = "*"', True),
        ('value = "s3://b/*"', True),
        ('value = "s3://c/*"', False),
        ('value = "s3://b/x?a=[1]"', True),
        ('meta = { region = "eu" }', True),
        ('meta = { region = "us" }', False),
        ('meta = { region = "*" }', True),
        ('meta = { region = ["us", "eu"], other = "*" }', False),
        ('type = "load", result = "error"', False),
        ('type = "load", result = "*"', True),
        ('type = "load", result = ["error", "complete"]', True),
    ],
)
def test_match(tmp_path: Path, match: str, matches: bool) -> None:
    """A rule matches when everything it names does, and only then."""
    parent = Task("load", "s3://b/x?a=1", job="daily", meta={"region": "eu"}, id="p")
    made = ask(tmp_path, f'[[rule]]\nmatch = {{ {match} }}\ntype = "b"\n{CYCLE}', parent=parent)

    assert made.matched == len(made.found) == int(matches)


CYCLE = "allow_cycle = true\nmax_depth = 5\n"


def test_a_task_without_job_has_no_job(tmp_path: Path) -> None:
    """A rule that asks for any job does not match a task without one."""
    assert ask(tmp_path, f'[[rule]]\nmatch = {{ job = "*" }}\ntype = "b"\n{CYCLE}').matched == 0


@pytest.mark.parametrize("result", Result)
def test_only_complete_by_default(tmp_path: Path, result: Result) -> None:
    """A rule that names no result is for completed tasks."""
    assert ask(tmp_path, RULE, result).matched == (result is Result.COMPLETE)


def test_several_rules_match(tmp_path: Path) -> None:
    """Every rule that matches makes its child, in the order of the file; a disabled one does not."""
    rules = RULE + '[[rule]]\nmatch = { type = "*" }\ntype = "c"\nid = "c"\n' + CYCLE
    rules += '[[rule]]\nmatch = { type = "a" }\ntype = "d"\nenabled = false\n'

    assert [task.type for task in tasks(ask(tmp_path, rules))] == ["b", "c"]


def test_the_child(tmp_path: Path) -> None:
    """A child has its value from the parent, an id of its own, and says whose child it is."""
    parent = Task(
        "a",
        "s3://b/x.csv?hour=3",
        id="p",
        meta={"workflow": "w", "traceparent": "00-1", "cron": "2026-01-01T05:00:00Z", "file": "f", "region": "e&u"},
    ).replace(result="complete", msg="ok")
    rules = """
[[rule]]
id = "r"
match = { type = "a" }
type = "b"
job = "j"
topic = "bs"
task = "{parent.origin}.gz?hour={parent.query:hour}&region={meta:region}&day={dd}&{hh}"
delay = "90s"
offset = "-4h"
timezone = "Europe/Berlin"
meta = { source = "{parent.filename}", file = "mine" }
"""
    children = ask(tmp_path, rules, parent=parent)
    (child,), (task,) = children.found, tasks(children)

    assert (child.topic, child.delay, child.id) == ("bs", 90.0, task.id)
    assert (task.type, task.job, task.value) == ("b", "j", "s3://b/x.csv.gz?hour=3&region=e%26u&day=01&02")
    assert task.meta == {
        "workflow": "w",
        "traceparent": "00-1",
        "cron": "2026-01-01T05:00:00Z",
        "source": "x.csv",
        "file": "mine",
        "parent": "p",
        "root": "p",
    }
    assert task.result is None
    assert task.created is not None


def test_ids_are_derived(tmp_path: Path) -> None:
    """The same parent, rule and item give the same id; another of any gives another."""
    rules = RULE + 'for_each = "1..3"\n[[rule]]\nid = "other"\nmatch = { type = "a" }\ntype = "c"\n'
    first, again = ask(tmp_path, rules), ask(tmp_path, rules)
    other = ask(tmp_path, rules, parent=Task("a", "v", id="q"))

    ids = [child.id for child in first.found]
    assert ids == [child.id for child in again.found]
    assert len({*ids, *(child.id for child in other.found)}) == 8


def test_the_root_stays(tmp_path: Path) -> None:
    """The first task of a chain is known to all that follow."""
    (child,) = tasks(ask(tmp_path, RULE, parent=Task("a", id="p", meta={"root": "first", "parent": "second"})))

    assert child.meta == {"parent": "p", "root": "first"}


def test_the_dialect_of_the_parent(tmp_path: Path) -> None:
    """A parent that the Go toolkit wrote gets children it can read."""
    parent = Task("a", "v", id="p", dialect=Dialect.GO)

    assert b'"info":"v"' in ask(tmp_path, RULE + 'task = "{parent.value}"', parent=parent).found[0].body


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ('["x", "y z"]', ["0:x", "1:y z"]),
        ('"1..3"', ["0:1", "1:2", "2:3"]),
        ('"08..11"', ["0:08", "1:09", "2:10", "3:11"]),
        ('"7..7"', ["0:7"]),
        ('"{meta:files}"', ["0:f1", "1:f2"]),
        ('"{meta:files},{parent.id}"', ["0:f1", "1:f2", "2:p"]),
        ('"{meta:none|default:}"', []),
    ],
)
def test_for_each(tmp_path: Path, given: str, values: list[str]) -> None:
    """One child for each item of a list, a range or a list in the parent's meta."""
    parent = Task("a", "v", id="p", meta={"files": "f1, ,f2,"})
    children = ask(tmp_path, RULE + f'for_each = {given}\ntask = "{{index}}:{{item}}"', parent=parent)

    assert [task.value for task in tasks(children)] == values
    assert children.matched == 1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('task = "{meta:region}"', "rule a>b: there is no value for {meta:region}"),
        ('task = "{yyyy}"', "rule a>b: the parent has no meta 'cron'"),
        ('task = "{parent.job}"', "there is no value for {parent.job}"),
        ('for_each = "{meta:files}"', "there is no value for {meta:files}"),
        ('for_each = "{meta:many}"', "10001 items are more than the limit"),
    ],
)
def test_what_cannot_be_made(tmp_path: Path, rule: str, said: str) -> None:
    """A rule that cannot make its child says why, and the others make theirs."""
    parent = Task("a", "v", id="p", meta={"many": "x," * 10_001})
    children = ask(tmp_path, RULE + rule + '\n[[rule]]\nid = "c"\nmatch = { type = "a" }\ntype = "c"\n', parent=parent)

    (problem,) = children.problems
    assert said in problem
    assert [decode(child.body).type for child in children.found] == ["c"]


@pytest.mark.parametrize(
    ("cron", "shown"), [("2017-01-02T03", "2017010203"), ("2017-01-02T03:00:00+02:00", "2017010201")]
)
def test_times_of_the_parent(tmp_path: Path, cron: str, shown: str) -> None:
    """The moment is read as this toolkit and the Go toolkit write it."""
    (child,) = tasks(ask(tmp_path, RULE + 'task = "{yyyy}{mm}{dd}{hh}"', parent=Task("a", id="p", meta={"cron": cron})))

    assert child.value == shown


@pytest.mark.parametrize("cron", ["yesterday", "9999-12-31T23:59:59Z", ""])
def test_times_that_are_none(tmp_path: Path, cron: str) -> None:
    """A parent whose moment cannot be read, or leaves the calendar, is told."""
    children = ask(tmp_path, RULE + 'task = "{yyyy}"\noffset = "9d"', parent=Task("a", id="p", meta={"cron": cron}))

    assert "not a time" in children.problems[0]


def test_a_cycle_is_counted(tmp_path: Path) -> None:
    """Each turn of an allowed cycle counts, and the one too many is told."""
    rules = family(
        tmp_path, '[[rule]]\nid = "r"\nmatch = { type = "a" }\ntype = "a"\nallow_cycle = true\nmax_depth = 3\n'
    )
    task = Task("a", "v", id="p")
    for depth in ("1", "2", "3"):
        (child,) = rules.children(task, task.id or "", Result.COMPLETE, NOW).found
        task = decode(child.body)
        assert task.meta["depth"] == depth

    (problem,) = rules.children(task, task.id or "", Result.COMPLETE, NOW).problems
    assert "gone round 3 times" in problem

    broken = task.replace(meta={"depth": "many"})
    assert "not a number" in rules.children(broken, "p", Result.COMPLETE, NOW).problems[0]


def test_types_without_end_take_no_memory(tmp_path: Path) -> None:
    """What was remembered of types is forgotten when there are too many."""
    rules = family(tmp_path, RULE)
    for number in range(25_000):
        rules.children(Task(f"type-{number}", id="p"), "p", Result.COMPLETE, NOW)

    assert len(rules._by_type) <= 10_000
    assert rules.children(Task("a", id="p"), "p", Result.COMPLETE, NOW).matched == 1
