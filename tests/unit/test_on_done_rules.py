"""On-done rule files: what they may say, how mistakes are told, and which cycles are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from task.errors import SettingsError
from task.outcome import Result
from taskmasters.on_done.chain import describe_chains, on_cycles
from taskmasters.on_done.explain import explain
from taskmasters.on_done.rules import OnDoneRule, load_on_done_rules


def load(folder: Path, text: str, name: str = "rules.toml") -> list[OnDoneRule]:
    """The rules of a file with this text."""
    path = folder / name
    path.write_text(text)
    return load_on_done_rules(str(path))


def mistakes(folder: Path, text: str) -> str:
    """What is told of a wrong rule file."""
    with pytest.raises(SettingsError) as caught:
        load(folder, text)
    return str(caught.value)


def chain(*steps: str, **more: str) -> str:
    """Rules such as ``a>b``: from each done ``a`` a ``b``. ``more`` adds lines to the rule of that name."""
    text = ""
    for step in steps:
        before, after = step.split(">")
        text += f'[[rule]]\nid = "{step}"\nmatch = {{ type = "{before}" }}\ntype = "{after}"\n{more.get(after, "")}\n'
    return text


FULL = """
[[rule]]
id = "full"
type = "load"
job = "daily"
topic = "loads"
task = "{parent.origin}?part={item}&hour={hh}&n={index}"
for_each = ["a", "b", 3]
timezone = "Europe/Berlin"
offset = "-1h"
delay = "5s"
keep_meta = ["x*"]
enabled = true
meta = { part = "{item}" }
[rule.match]
type = ["extract", "fetch-*"]
job = "daily"
value = "s3://*"
result = ["complete", "warn"]
meta = { region = "eu*", file = "*" }

[[rule]]
match = { type = "extract" }
type = "tidy"
"""


def test_every_key(tmp_path: Path) -> None:
    """Every key of a rule is read, and has a default where it is left out."""
    full, small = load(tmp_path, FULL)

    assert (full.id, full.type, full.job, full.topic, full.delay, full.offset) == (
        "full", "load", "daily", "loads", 5.0, -3600.0,
    )  # fmt: skip
    assert full.matches[0].results == {Result.COMPLETE, Result.WARN}
    assert full.items is not None
    assert list(full.items.fixed) == ["a", "b", "3"]
    assert full.keep_meta.given == ("x*",)
    assert (small.id, small.topic, small.items, small.delay, small.max_depth) == ("extract>tidy", "tidy", None, 0, None)
    assert small.matches[0].results == {Result.COMPLETE}
    assert small.keep_meta.match("workflow")
    assert small.keep_meta.match("traceparent")
    assert not small.keep_meta.match("file")


RULE = '[[rule]]\nmatch = { type = "a" }\ntype = "b"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rule]]\ntype = "b"', "rules.toml:1: rule[0]: the rule has no 'match': which done tasks it is for"),
        ('[[rule]]\nmatch = "a"\ntype = "b"', "rules.toml:2: rule[0].match: must be a table"),
        ('[[rule]]\nmatch = { tpye = "a" }\ntype = "b"', "rules.toml:2: rule[0].match.tpye: unknown key; did you mean"),
        ('[[rule]]\nmatch = { type = 3 }\ntype = "b"', "rule[0].match.type: must be a text or a list of texts"),
        ('[[rule]]\nmatch = { type = [] }\ntype = "b"', "rule[0].match.type: must be a text or a list of texts"),
        ('[[rule]]\nmatch = { type = "a", result = "completed" }\ntype = "b"', "did you mean 'complete'?"),
        ('[[rule]]\nmatch = { type = "a", meta = { x = 1 } }\ntype = "b"', "rule[0].match.meta.x: must be a text"),
        (RULE + 'task = "{item}"', "rules.toml:4: rule[0].task: {item} has no meaning here without for_each"),
        (RULE + 'task = "{parent.valeu}"', "{parent.valeu}; did you mean 'parent.value'?"),
        (RULE + 'for_each = "5..1"', "rules.toml:4: rule[0].for_each: '5..1' runs backwards"),
        (RULE + 'for_each = "1..999999999"', "999999999 items are more than the limit of 10000"),
        (RULE + 'for_each = "a,b"', "rules.toml:4: rule[0].for_each: must be a list of texts, a range"),
        (RULE + "for_each = []", "must be a list of texts, a range"),
        (RULE + "for_each = 5", "must be a list of texts, a range"),
        (RULE + 'for_each = "{meta}"', "{meta}: write {meta:KEY}"),
        (RULE + 'meta = { parent = "x" }', "rules.toml:4: rule[0].meta.parent: is set by the taskmaster"),
        (RULE + 'delay = "-1s"', "rules.toml:4: rule[0].delay: must not be negative"),
        (RULE + "allow_cycle = true", "rules.toml:1: rule[0]: the rule has no 'max_depth'"),
        (RULE + "max_depth = 3", "rules.toml:4: rule[0].max_depth: means nothing without allow_cycle"),
        (RULE + "allow_cycle = true\nmax_depth = 0", "max_depth: must be a whole number of at least 1"),
        (RULE + "allow_cycle = true\nmax_depth = true", "max_depth: must be a whole number of at least 1"),
        (RULE + RULE, "rules.toml:4: rule[1]: a rule before it is called 'a>b' too"),
        (RULE + "keep_meta = 3", "rules.toml:4: rule[0].keep_meta: must be a text or a list"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, said: str) -> None:
    """Every mistake is told with file, line and key, and with what would be right."""
    assert said in mistakes(tmp_path, text)


def test_nothing_is_kept_if_so_said(tmp_path: Path) -> None:
    """An empty keep_meta keeps nothing."""
    (rule,) = load(tmp_path, RULE + "keep_meta = []")

    assert not rule.keep_meta.match("workflow")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (chain("a>a"), "rules.toml:1: rule[0]: what it makes can come back to it, without end: a>a → a>a"),
        (chain("a>b", "b>c", "c>a"), "a>b → b>c → c>a → a>b"),
        (chain("*>b"), "*>b → *>b"),
        (chain("a>b", "b*>a"), "a>b → b*>a → a>b"),
        ('[[rule]]\nid = "r"\nmatch = { type = "a", result = "error" }\ntype = "a"', "r → r"),
        ('[[rule]]\nid = "r"\nmatch = { job = "j" }\ntype = "a"\njob = "j"', "r → r"),
    ],
)
def test_cycles_are_refused(tmp_path: Path, text: str, said: str) -> None:
    """A chain that can come back to itself is a mistake, and the way it takes is shown."""
    told = mistakes(tmp_path, text)
    ways = {told.split("without end: ")[1].split(";")[0]} if "without end" in told else set()

    way = said.split("without end: ")[-1]
    steps = way.split(" → ")[:-1]
    turned = {" → ".join([*steps[n:], *steps[:n], steps[n]]) for n in range(len(steps))}
    assert ways & turned, told
    assert "allow_cycle = true" in told


@pytest.mark.parametrize(
    "text",
    [
        chain("a>b", "b>c", "a>c", "c>d"),
        chain("a>b", "b>a", a="allow_cycle = true\nmax_depth = 3"),
        chain("a>b", "b>a", a="enabled = false"),
        '[[rule]]\nmatch = { type = "a", job = "first" }\ntype = "a"\njob = "second"',
        '[[rule]]\nmatch = { type = "a", job = "*" }\ntype = "a"',
    ],
)
def test_what_is_no_cycle(tmp_path: Path, text: str) -> None:
    """Chains that end, or whose turns are counted, are right."""
    assert load(tmp_path, text)


def test_every_cycle_is_told(tmp_path: Path) -> None:
    """Two cycles that have nothing in common are told together."""
    told = mistakes(tmp_path, chain("a>b", "b>a", "c>d", "d>c"))

    assert told.startswith("2 mistakes:")


def test_who_counts_the_depth(tmp_path: Path) -> None:
    """Exactly the rules on a cycle count its turns."""
    rules = load(tmp_path, chain("z>a", "a>b", "b>a", "b>c", b="allow_cycle = true\nmax_depth = 3"))

    assert on_cycles(rules) == {"a>b", "b>a"}


def test_many_rules(tmp_path: Path) -> None:
    """A chain as long as the file is read without recursion, and quickly."""
    rules = load(tmp_path, chain(*(f"{n}>{n + 1}" for n in range(3000))))

    assert len(list(describe_chains(rules))) == 3001


def test_explained(tmp_path: Path) -> None:
    """Each rule is explained in words, and the chain is drawn."""
    text = "\n".join(
        explain(load(tmp_path, FULL + chain("load>report", "x>y", "y>x", x="allow_cycle=true\nmax_depth=9")))
    )

    for sentence in [
        "for each done task of extract or fetch-*, job daily, value s3://*, meta region eu*, meta file present "
        "that ended with complete or warn",
        "makes: load:daily with the value '{parent.origin}?part={item}&hour={hh}&n={index}', on topic loads, "
        "for each of 3 items",
        "meta part = '{item}'",
        "meta kept from the done task: x*",
        "which may be done 5s later",
        "at most 9 times in one cycle",
        "    → load:daily [full]\n      → report [load>report]",
        "  x that ended with complete\n    → y [x>y]\n      → x [y>x]\n        → y [x>y] (see above)",
    ]:
        assert sentence in text
