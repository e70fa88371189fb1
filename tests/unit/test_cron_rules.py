"""Cron rule files: what they may say, and how every mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from task.codec import decode
from task.errors import SettingsError
from taskmasters.cron.explain import explain, preview
from taskmasters.cron.rules import Missed, load_cron_rules

FULL = """
[[rule]]
id = "load"
cron = "0 5 * * *"
timezone = "Europe/Berlin"
offset = "-4h"
jitter = 30
type = "load"
job = "daily"
topic = "loads"
task = "s3://b/{day_slug}?name={meta:name}&at={meta:cron}"
missed = "all"
window = "3d"
enabled = false
meta = { name = "x {hh}" }

[[rule]]
cron = "@hourly"
type = "tick"
"""

AS_YAML = """
rule:
  - id: load
    cron: 0 5 * * *
    timezone: Europe/Berlin
    offset: -4h
    jitter: 30
    type: load
    job: daily
    topic: loads
    task: s3://b/{day_slug}?name={meta:name}&at={meta:cron}
    missed: all
    window: 3d
    enabled: false
    meta: {name: "x {hh}"}
  - cron: "@hourly"
    type: tick
"""


def write(folder: Path, text: str, name: str = "rules.toml") -> str:
    """A rule file."""
    path = folder / name
    path.write_text(text)
    return str(path)


def mistakes(folder: Path, text: str) -> str:
    """What is told of a wrong rule file."""
    with pytest.raises(SettingsError) as caught:
        load_cron_rules(write(folder, text))
    return str(caught.value)


@pytest.mark.parametrize(("text", "name"), [(FULL, "rules.toml"), (AS_YAML, "rules.yaml")])
def test_every_key(tmp_path: Path, text: str, name: str) -> None:
    """Every key of a rule is read, from TOML and YAML alike, and has a default where it is left out."""
    full, small = load_cron_rules(write(tmp_path, text, name))

    assert (full.id, full.type, full.job, full.topic) == ("load", "load", "daily", "loads")
    assert (full.offset, full.jitter, full.window) == (-14400.0, 30.0, 259200.0)
    assert (full.missed, full.enabled, full.zone.name) == (Missed.ALL, False, "Europe/Berlin")
    task = full.make(1767240000, 0)  # 2026-01-01T04:00Z
    assert task.value == "s3://b/2026/01/01?name=x%2001&at=2026-01-01T04:00:00Z"
    assert (small.id, small.topic, small.missed, small.window) == ("tick", "tick", Missed.LAST, 86400.0)
    assert small.make(0, 0).value == ""


RULE = '[[rule]]\ncron = "@daily"\ntype = "t"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "rules.toml: there is no [[rule]] in it"),
        ("rule = 3", "rules.toml:1: rule: must be a list of rules"),
        ("rule = [3]", "rules.toml:1: rule: must be a list of rules"),
        (RULE + "tpye = 3", "rules.toml:4: rule[0].tpye: unknown key; did you mean 'type'?"),
        ("rles = 1\n" + RULE, "rules.toml:1: rles: unknown key; did you mean 'rule'?"),
        ('[[rule]]\ncron = "@daily"', "rules.toml:1: rule[0]: the rule has no 'type'"),
        ('[[rule]]\ntype = "t"', "rules.toml:1: rule[0]: the rule has no 'cron'"),
        ('[[rule]]\ncron = "61 * * * *"\ntype = "t"', "rules.toml:2: rule[0].cron: '61 * * * *': '61' does not fit"),
        ('[[rule]]\ncron = 5\ntype = "t"', "rules.toml:2: rule[0].cron: must be a text, not a number"),
        (RULE + 'timezone = "Europe/Berln"', "rules.toml:4: rule[0].timezone: 'Europe/Berln' is not a time zone"),
        (RULE + 'task = "{yyyz}"', "rules.toml:4: rule[0].task: unknown token {yyyz}; did you mean 'yyyy'?"),
        (RULE + 'task = "{parent.id}"', "rules.toml:4: rule[0].task: {parent.id} has no meaning here"),
        (RULE + 'task = "{meta:a}"', "rules.toml:4: rule[0].task: {meta:a}: the rule's meta has no 'a'"),
        (RULE + "task = 3", "rules.toml:4: rule[0].task: must be a text, not a number"),
        (RULE + 'meta = { a = "{oops}" }', "rules.toml:4: rule[0].meta.a: unknown token {oops}"),
        (RULE + 'meta = { a = "{meta:b}", b = "" }', "rules.toml:4: rule[0].meta.a: {meta:b} has no meaning here"),
        (RULE + 'meta = { cron = "x" }', "rules.toml:4: rule[0].meta.cron: holds the instant"),
        (RULE + 'meta = "x"', "rules.toml:4: rule[0].meta: must be a table"),
        (RULE + 'topic = "a b"', "rules.toml:4: rule[0].topic: 'a b' is not a topic name"),
        (RULE + 'topic = ""', "rules.toml:4: rule[0].topic: must not be empty"),
        (RULE + 'jitter = "-5s"', "rules.toml:4: rule[0].jitter: must not be negative"),
        (RULE + 'jitter = "soon"', "rules.toml:4: rule[0].jitter: 'soon' is not a duration"),
        (RULE + "jitter = inf", "rules.toml:4: rule[0].jitter: must be less than ten years"),
        (RULE + "offset = nan", "rules.toml:4: rule[0].offset: must be less than ten years"),
        (RULE + 'missed = "never"', "rules.toml:4: rule[0].missed: 'never' is none of skip, last, all"),
        (RULE + 'enabled = "yes"', "rules.toml:4: rule[0].enabled: must be true or false, not a text"),
        (RULE + RULE, "rules.toml:4: rule[1]: a rule before it is called 't' too"),
        (RULE + 'id = "x"\n' + RULE + 'id = "x"', "rules.toml:5: rule[1]: a rule before it is called 'x' too"),
        ("[[rule]", "rules.toml"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, said: str) -> None:
    """Every mistake is told with file, line and key, and with what would be right."""
    assert said in mistakes(tmp_path, text)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """All mistakes of a file are told together, in the order of the file."""
    told = mistakes(tmp_path, 'oops = 1\n[[rule]]\ncron = "x"\ntask = "{y}"\n' + RULE + "colour = 1").splitlines()

    assert told[0] == "5 mistakes:"
    assert [line.split("rules.toml")[1].split(":")[1] for line in told[1:]] == ["1", "2", "3", "4", "8"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule:\n  - cron: '@daily'\n    type: t\n    meta: {1: x}", "the key '1'"),
        ("rule:\n  - cron: '@daily'\n    type: t\n    task: 2017-01-01", "must be a text, not a date"),
        ('rule:\n  - cron: "@daily"\n    type: t\n    task: "\\ud800"', "rules.yaml"),
        ("- a list", "rules.yaml"),
    ],
)
def test_mistakes_only_yaml_allows(tmp_path: Path, text: str, said: str) -> None:
    """What YAML reads differently from what was meant is told, not stumbled over."""
    with pytest.raises(SettingsError) as caught:
        load_cron_rules(write(tmp_path, text, "rules.yaml"))

    assert said in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is told by its name."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_cron_rules(str(tmp_path / "nowhere.toml"))


def test_explained(tmp_path: Path) -> None:
    """Each rule is explained in words, with what it would send next."""
    text = "\n".join(explain(load_cron_rules(write(tmp_path, FULL)), 1767225600.0))

    for sentence in [
        "load (disabled)",
        "when: At 05:00 every day, Europe/Berlin time",
        "delayed by up to 30s",
        "makes: load:daily with the value 's3://b/{day_slug}?name={meta:name}&at={meta:cron}', on topic loads",
        "meta name = 'x {hh}'",
        "its times are those 4h before the instant",
        "missed while down: each is made up for, if no older than 3d",
        "next: 2026-01-01T04:00:00Z with the value 's3://b/2026/01/01?name=x%2001&at=2026-01-01T04:00:00Z'",
        "missed while down: the latest is made up for, if no older than 1d",
    ]:
        assert sentence in text


def test_previewed(tmp_path: Path) -> None:
    """The preview has the next tasks of each enabled rule in order of time, with the ids they will have."""
    rules = load_cron_rules(write(tmp_path, RULE + 'id="d"\n[[rule]]\ncron = "0 */9 * * *"\ntype = "u"\nid="e"\n'))
    found = [decode(body) for body in preview(rules, 1767225600.0, 3)]

    instants = [task.meta["cron"] for task in found]
    assert instants == sorted(instants)
    assert len(found) == 6
    assert found[0].id == rules[1].make(1767225600 + 9 * 3600, 0).id
