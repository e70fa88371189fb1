"""What people get wrong in rule files, for every taskmaster: file, line, key, the nearest right one, and nothing used.

Each mistake stands alone in a file that is right otherwise; what is told is that one mistake. The same when the file is
edited while it is in use: then the old rules go on.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from task.errors import SettingsError
from taskmasters.alerts.rules import load_alerts
from taskmasters.cron.rules import load_cron_rules
from taskmasters.files.rules import load_file_rules
from taskmasters.on_done.rules import load_on_done_rules
from taskmasters.reload import RuleFile
from taskmasters.retry.rules import load_retry_rules
from taskmasters.workflow.load import load_workflows
from tests.helpers import await_until

DURATION = "is not a duration; write seconds or like 250ms, 90s, 1h30m, 2d"
TOPIC = "is not a topic name: use 1 to 64 of letters, digits, '.', '_' and '-', not only dots"
FLAG = "must be true or false, not a text"
ZONE = "'Europe/Berln' is not a time zone; did you mean 'Europe/Berlin'?"
TAKEN = "too: give each an id of its own"


class Kind(NamedTuple):
    """A taskmaster: how its file is read, a right one, and mistakes that may follow it.

    Each is lines added at the end, where in the file they are told of, and what is said.
    """

    load: Callable[[str], Any]
    right: str
    wrong: list[tuple[str, str, str]]


KINDS = {
    "cron": Kind(
        load_cron_rules,
        '[[rule]]\ncron = "0 5 * * *"\ntype = "a"\n',
        [
            ('timezon = "UTC"', "4: rule[0].timezon", "unknown key; did you mean 'timezone'?"),
            ('enabled = "yes"', "4: rule[0].enabled", FLAG),
            ('jitter = "5 minuts"', "4: rule[0].jitter", f"'5 minuts' {DURATION}"),
            ("jitter = -1", "4: rule[0].jitter", "must not be negative"),
            ('timezone = "Europe/Berln"', "4: rule[0].timezone", ZONE),
            ('topic = "load/*"', "4: rule[0].topic", f"'load/*' {TOPIC}"),
            ('task = "{yyy}"', "4: rule[0].task", "unknown token {yyy}; did you mean 'yyyy'?"),
            ('missed = "al"', "4: rule[0].missed", "'al' is none of skip, last, all; did you mean 'all'?"),
            ("meta = { a = 1 }", "4: rule[0].meta.a", "must be a text, not a number"),
            ('[[rule]]\ncron = "@daily"\ntype = "a"', "4: rule[1]", f"a rule before it is called 'a' {TAKEN}"),
            ('[[rule]]\ncron = "0 25 * * *"\ntype = "b"', "5: rule[1].cron", "'25' does not fit the hour: 0 to 23"),
            ('[[rule]]\ncron = "@dayly"\ntype = "b"', "5: rule[1].cron", "@daily"),
            ('[[rule]]\ntype = "b"', "4: rule[1]", "the rule has no 'cron'"),
            ('[[rul]]\ntype = "b"', "4: rul", "unknown key; did you mean 'rule'?"),
        ],
    ),
    "on-done": Kind(
        load_on_done_rules,
        '[[rule]]\nmatch = { type = "a" }\ntype = "b"\n',
        [
            ('fore_each = "1..3"', "4: rule[0].fore_each", "unknown key; did you mean 'for_each'?"),
            ('allow_cycle = "yes"', "4: rule[0].allow_cycle", FLAG),
            ('delay = "soon"', "4: rule[0].delay", f"'soon' {DURATION}"),
            ('timezone = "Europe/Berln"', "4: rule[0].timezone", ZONE),
            ('topic = "a b"', "4: rule[0].topic", f"'a b' {TOPIC}"),
            ('task = "{parnt.value}"', "4: rule[0].task", "unknown token {parnt.value}; did you mean 'parent.value'?"),
            ("for_each = 5", "4: rule[0].for_each", 'must be a list of texts, a range like "1..5"'),
            (
                '[[rule]]\nid = "q"\ntype = "c"\nmatch = { typ = "a" }',
                "7: rule[1].match.typ",
                "unknown key; did you mean 'type'?",
            ),
            (
                '[[rule]]\nid = "q"\ntype = "c"\nmatch = { result = "completed" }',
                "7: rule[1].match.result",
                "'completed' is not a result; did you mean 'complete'?",
            ),
            (
                '[[rule]]\nid = "q"\ntype = "a"\nmatch = { type = "b" }',
                "1: rule[0]",
                "what it makes can come back to it, without end: a>b → q → a>b",
            ),
            ('[[rule]]\ntype = "c"', "4: rule[1]", "match"),
        ],
    ),
    "retry": Kind(
        load_retry_rules,
        '[[rule]]\nmatch = { type = "a" }\nretries = 3\n',
        [
            ('dely = "5s"', "4: rule[0].dely", "unknown key; did you mean 'delay'?"),
            ('enabled = "yes"', "4: rule[0].enabled", FLAG),
            ('delay = "5 minuts"', "4: rule[0].delay", f"'5 minuts' {DURATION}"),
            ('backoff = "fibonaci"', "4: rule[0].backoff", "fibonacci, linear, fixed; did you mean 'fibonacci'?"),
            ('topic = "a b"', "4: rule[0].topic", f"'a b' {TOPIC}"),
            ('[[rule]]\nmatch = { type = "a" }\nretries = 1', "4: rule[1]", TAKEN),
            ('[[rule]]\nmatch = { type = "b" }\nretries = "x"', "6: rule[1].retries", "must be a whole number"),
        ],
    ),
    "files": Kind(
        load_file_rules,
        '[[rule]]\npath = "in/*.csv"\ntype = "b"\n',
        [
            ('setle = "2s"', "4: rule[0].setle", "unknown key; did you mean 'settle'?"),
            ('watch = "yes"', "4: rule[0].watch", FLAG),
            ('settle = "soon"', "4: rule[0].settle", f"'soon' {DURATION}"),
            ('timezone = "Europe/Berln"', "4: rule[0].timezone", ZONE),
            ('topic = "a b"', "4: rule[0].topic", f"'a b' {TOPIC}"),
            ('task = "{fil}"', "4: rule[0].task", "unknown token {fil}; did you mean 'file'?"),
            ('again = "nevr"', "4: rule[0].again", "'nevr' is none of changed, never; did you mean 'never'?"),
            ('match = "("', "4: rule[0].match", "'(' is not a regular expression"),
            ('group_by = "directory"\ncron = "61 * * * *"', "5: rule[0].cron", "'61' does not fit the minute"),
            ('group_by = "directory"', "4: rule[0].group_by", "give one of count, quiet, marker, cron"),
            ('[[rule]]\nid = "q"\ntype = "b"\npath = "s4://b/x"', "7: rule[1].path", "known: file, gs, memory, s3"),
            ('[[rule]]\nid = "q"\ntype = "b"\npath = "in/{yyy}"', "7: rule[1].path", "did you mean 'yyyy'?"),
            ('[[rule]]\ntype = "b"\npath = "x"', "4: rule[1]", TAKEN),
        ],
    ),
    "alerts": Kind(
        load_alerts,
        '[[channel]]\nid = "log"\nkind = "log"\n[[rule]]\nto = "log"\n',
        [
            ('colect = "5s"', "6: rule[0].colect", "unknown key; did you mean 'collect'?"),
            ('enabled = "yes"', "6: rule[0].enabled", FLAG),
            ('collect = "soon"', "6: rule[0].collect", f"'soon' {DURATION}"),
            ('on = ["alrt"]', "6: rule[0].on", "'alrt' is nothing to tell of; did you mean 'alert'?"),
            ('[[rule]]\nid = "q"\nto = "lgo"', "8: rule[1].to", "there is no channel 'lgo'; did you mean 'log'?"),
            ('[[channel]]\nid = "q"\nkind = "slak"', "8: channel[1].kind", "did you mean 'slack'?"),
            ('[[channel]]\nid = "log"\nkind = "log"', "6: channel[1]", TAKEN),
            ('[[deadline]]\ntopic = "a b"\nwithin = "5s"', "7: deadline[0].topic", f"'a b' {TOPIC}"),
            ('[[deadline]]\ntopic = "a"', "6: deadline[0]", "the rule has no 'within'"),
            ('[[deadlin]]\ntopic = "a"', "6: deadlin", "unknown key; did you mean 'deadline'?"),
        ],
    ),
    "workflow": Kind(
        load_workflows,
        '[[job]]\ntype = "a"\n',
        [
            ('on_failur = "stop"', "3: job[0].on_failur", "unknown key; did you mean 'on_failure'?"),
            ("retris = 3", "3: job[0].retris", "unknown key; did you mean 'retry'?"),
            ('deadline = "soon"', "3: job[0].deadline", f"'soon' {DURATION}"),
            ('topic = "a b"', "3: job[0].topic", f"'a b' {TOPIC}"),
            ('task = "{job.b.value}"', "3: job[0].task", "there is no job 'b'; known: a"),
            ('depends_on = "b"', "3: job[0].depends_on", "there is no job 'b'; known: a"),
            ('on_failure = "stp"', "3: job[0].on_failure", "did you mean 'stop'?"),
            ("for_each = 5", "3: job[0].for_each", "must be a list of texts or of tables"),
            ('retry = { count = "x" }', "3: job[0].retry.count", "must be a whole number"),
            ('for_each = { times = "-1d", by = "dy" }', "3: job[0].for_each", "did you mean 'day'?"),
            ('depends_on = "b"\n[[job]]\ntype = "b"\ndepends_on = "a"', "1: job[0]", "waits for itself: a → b → a"),
            ('[[job]]\ntype = "a"', "3: job[1].name", "'a' is taken already"),
            ('[[start]]\ncron = "@daily"\ntimezone = "Europe/Berln"', "5: start[0].timezone", ZONE),
            ('[[start]]\ncron = "0 25 * * *"', "4: start[0].cron", "'25' does not fit the hour"),
            ('[[start]]\nafter = "nobody"', "4: start[0].after", "there is no workflow 'nobody'; known: rules"),
            ('[[strat]]\ncron = "@daily"', "3: strat", "unknown key; did you mean 'start'?"),
        ],
    ),
}
#: What is wrong with a file as a whole; None: it is not there; a folder.
BODIES: dict[str, tuple[bytes | None, str]] = {
    "empty": (b"", r": there is no \[\[(rule|job)\]\]"),
    "not UTF-8": (b'a = 1\nb = "\xff"\n', r":2: is not UTF-8 text"),
    "not TOML": (b"a = 1\n[[rule]\n", r":2: Expected '\]\]'"),
    "zeros": (b"\x00" * 100, r":1: Invalid statement"),
    "twice": (b"a = 1\na = 2\n", r":2: Cannot overwrite a value"),
    "missing": (None, r": cannot be read: No such file or directory"),
}
MISTAKES = [(kind, *mistake) for kind, each in KINDS.items() for mistake in each.wrong]


def write(path: Path, body: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if body is not None:
        path.write_bytes(body)


def refused(kind: str, path: Path) -> list[str]:
    """The lines of what is told of a file, without the folder."""
    with pytest.raises(SettingsError) as caught:
        KINDS[kind].load(str(path))
    return str(caught.value).replace(f"{path.parent}{os.sep}", "").splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_files_are_right(tmp_path: Path, kind: str) -> None:
    """So that what is told of the others is the mistake alone."""
    (tmp_path / "rules.toml").write_text(KINDS[kind].right)
    assert KINDS[kind].load(str(tmp_path / "rules.toml"))


@pytest.mark.parametrize(("kind", "lines", "where", "said"), MISTAKES)
def test_a_mistake(tmp_path: Path, kind: str, lines: str, where: str, said: str) -> None:
    """One line, with the place and what would be right."""
    (tmp_path / "rules.toml").write_text(f"{KINDS[kind].right}{lines}\n")
    (told,) = refused(kind, tmp_path / "rules.toml")
    assert told.startswith(f"rules.toml:{where}: ")
    assert said in told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", BODIES)
def test_a_file_that_is_none(tmp_path: Path, kind: str, body: str) -> None:
    """What is wrong with the whole file is told with its name, and its line where it has one."""
    write(tmp_path / "rules.toml", BODIES[body][0])
    told = refused(kind, tmp_path / "rules.toml")
    assert any(re.search(f"rules.toml{BODIES[body][1]}", line) for line in told), told


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder(tmp_path: Path, kind: str) -> None:
    """Only workflows may be a folder, which then must hold one; a name that is no rule file's says which are."""
    (tmp_path / "rules.toml").mkdir()
    (told,) = refused(kind, tmp_path / "rules.toml")
    assert re.fullmatch(r"rules.toml: (cannot be read: Is a directory|there is no file in it .*)", told)
    (tmp_path / "rules.txt").write_text(KINDS[kind].right)
    (told,) = refused(kind, tmp_path / "rules.txt")
    assert told == "rules.txt: its name must end in .toml, .yaml or .yml"


def edits(kind: str) -> Iterator[tuple[bytes | None, str]]:
    """Every bad edit of the right file, and what is told of it."""
    for lines, where, said in KINDS[kind].wrong:
        yield f"{KINDS[kind].right}{lines}\n".encode(), f"rules.toml:{re.escape(where)}: .*{re.escape(said)}"
    for body, said in BODIES.values():
        yield body, f"rules.toml{said}"


@pytest.mark.parametrize("kind", KINDS)
def test_bad_edits(tmp_path: Path, kind: str) -> None:
    """After each of them the old rules are in force and the trouble is told; the right file again ends it."""
    path = tmp_path / "rules.toml"
    path.write_text(KINDS[kind].right)

    async def main() -> None:
        file = RuleFile(str(path), KINDS[kind].load)
        file.interval = 0.002
        before = file.rules
        used: list[object] = []
        async with asyncio.timeout(60), file.watched(used.append):
            for body, said in edits(kind):
                write(path, body)
                await await_until(lambda said=said: re.search(said, file.trouble, re.DOTALL))  # type: ignore[misc]
                assert file.rules is before
            assert used == []
            path.write_text(KINDS[kind].right)
            await await_until(lambda: file.reloads == 1)
            assert file.trouble == ""
        assert len(used) == 1

    asyncio.run(main())
