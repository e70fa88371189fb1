"""Rule files of the files taskmaster."""

from __future__ import annotations

from pathlib import Path

import pytest

from task.errors import SettingsError
from taskmasters.files.explain import explain
from taskmasters.files.rules import Again, FileRule, Needs, load_file_rules


def load(folder: Path, text: str) -> list[FileRule]:
    path = folder / "rules.toml"
    path.write_text(text)
    return load_file_rules(str(path))


def mistakes(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(folder, text)
    return str(caught.value)


def test_a_rule_with_defaults(tmp_path: Path) -> None:
    """Only path and type are needed. A folder of this machine is made absolute; it settles, an object need not."""
    local, remote = load(
        tmp_path, '[[rule]]\npath = "in/*"\ntype = "load"\n[[rule]]\npath = "gcs://b/x"\ntype = "other"\n'
    )
    assert local.pattern.text == f"{Path.cwd()}/in/*"
    assert (local.settle, local.again, local.watch, local.existing) == (2.0, Again.CHANGED, True, True)
    assert remote.pattern.text == "gs://b/x"
    assert (remote.settle, remote.watch, remote.poll) == (0.0, False, None)


def test_a_rule_with_everything(tmp_path: Path) -> None:
    """Every key is read."""
    (rule,) = load(
        tmp_path,
        """
[[rule]]
id = "r"
path = "s3://b/{yyyy}/{mm}/{dd}/**/part-*"
exclude = ["**/bad*", "*.bak"]
temporary = ["_*"]
match = '(?P<region>\\w+)$'
lookback = "2d"
settle = "1m"
again = "never"
existing = false
poll = "5m"
endpoint = "http://127.0.0.1:9000"
anonymous = true
group_by = "{match:region}"
count = 3
quiet = "10m"
marker = "_SUCCESS"
cron = "@hourly"
needs = "all"
type = "load"
task = "{group}?n={count}&file={files}"
job = "daily"
topic = "loads"
meta = { at = "{iso}", first = "{file}" }
timezone = "Europe/Berlin"
offset = "-1h"
enabled = false
""",
    )
    assert rule.grouping is not None
    assert (rule.grouping.count, rule.grouping.quiet, rule.grouping.marker) == (3, 600.0, "_SUCCESS")
    assert (rule.grouping.needs, rule.again, rule.settle, rule.lookback) == (Needs.ALL, Again.NEVER, 60.0, 172800.0)
    assert (rule.topic, rule.job, rule.poll, rule.enabled, rule.existing) == ("loads", "daily", 300.0, False, False)
    told = "\n".join(explain([rule], 0.0))
    assert "when there are 3 of them and none came for 10m and _SUCCESS is beside them and it is time" in told
    assert "looks now into 3 of them, from s3://b/1969/12/30/**/part-* to s3://b/1970/01/01/**/part-*" in told


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """With line, key and what would be right, and nothing of the file is used."""
    told = mistakes(
        tmp_path,
        """[[rule]]
path = "ftp://b/x"
again = "always"
settel = "2s"
task = "{fiel.name}"
match = "("
count = 3
poll = "1ms"
meta = { file = "x" }
endpoint = "http://u:p@h"

[[rule]]
type = "t"
path = "/in/{yyy}"
group_by = "constant"
marker = "a/b"
needs = "some"
""",
    )
    for said in (
        "rules.toml:1: rule[0]: the rule has no 'type'",
        "rules.toml:2: rule[0].path: files cannot be looked for with ftp://",
        "rules.toml:3: rule[0].again: 'always' is none of changed, never",
        "rules.toml:4: rule[0].settel: unknown key; did you mean 'settle'?",
        "rules.toml:5: rule[0].task: unknown token {fiel.name}; did you mean 'file.name'?",
        "rules.toml:6: rule[0].match: '(' is not a regular expression: missing )",
        'rules.toml:7: rule[0].count: means nothing without group_by: write group_by = "directory"',
        "rules.toml:8: rule[0].poll: must be at least 100ms",
        "rules.toml:9: rule[0].meta.file: is set by the taskmaster: choose another key",
        "rules.toml:10: rule[0].endpoint: write http://HOST:PORT or https://HOST; credentials come from",
        "rules.toml:14: rule[1].path: unknown token {yyy}; did you mean 'yyyy'?",
        'rules.toml:15: rule[1].group_by: must be "directory" or have placeholders in it',
        "rules.toml:16: rule[1].marker: must be the plain name of a file, such as _SUCCESS",
        "rules.toml:17: rule[1].needs: 'some' is none of any, all",
    ):
        assert said in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('path = "s3://b"\ntype = "t"', "write s3://BUCKET/PATH, with a bucket that is a plain name"),
        ('path = "s3://*/x"\ntype = "t"', "with a bucket that is a plain name"),
        ('path = "/x"\ntype = "t"\ntask = "{count}"', "{count} has no meaning here"),
        ('path = "/x"\ntype = "t"\ntask = "{meta:a}"', "{meta:a}: the rule's meta has no 'a'"),
        ('path = "/x"\ntype = "t"\ngroup_by = "directory"', "says what goes together, but not when: give one of count"),
        ('path = "/x"\ntype = "t"\nendpoint = "http://h"', "means nothing for this path"),
    ],
)
def test_one_mistake(tmp_path: Path, text: str, said: str) -> None:
    """Each is told by itself too."""
    assert said in mistakes(tmp_path, f"[[rule]]\n{text}\n")
