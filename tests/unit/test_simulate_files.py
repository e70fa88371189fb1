"""Which file is for which taskmaster, and what is said when that, or anything else, is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskmasters.simulate.files import RuleFiles, find_files
from tests.simulated import simulated, write

DAY = ("--from", "2026-01-01", "--to", "2026-01-02")
RULES = {
    "cron": '[[rule]]\ncron = "0 12 * * *"\ntype = "a"\n',
    "chain": '[[rule]]\nmatch = { type = "a" }\ntype = "b"\n',
    "join": '[[rule]]\nall = [{ type = "a" }, { type = "b" }]\nby = "{meta:cron}"\ntype = "c"\n',
    "retry": '[[rule]]\nmatch = { type = "a" }\nretries = 2\n',
    "flow": '[[job]]\ntype = "j"\n',
    "steps": '[[step]]\n[[step.job]]\ntype = "j"\n',
}


def test_kinds_are_found(tmp_path: Path) -> None:
    """Each kind of file is known by its keys, alone or in a folder; told, it is taken as that."""
    files = write(tmp_path, RULES)
    cron, chain, join, retry, flow, steps = files
    found = RuleFiles([cron], [chain, join], [retry], [flow, steps])
    assert find_files(files) == found
    assert find_files([cron, cron, f"on-done={chain}", join, f"retry={retry}", f"workflow={flow}", steps]) == found
    assert find_files([str(tmp_path)]).cron == [cron]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rule]]\ncorn = "0 12 * * *"\ntype = "a"\n', ":2: rule[0].corn: unknown key; did you mean 'cron'?"),
        ('[[rule]]\ntask = "x"\n', ":1: rule[0]: it cannot be told which taskmaster it is for: cron rules have"),
        ('[[jobb]]\ntype = "x"\n', ":1: jobb: is in no file that can be simulated; did you mean 'job'?"),
        ("", ": there is no [[rule]], [[job]] or [[step]] in it; to have it read as one, write cron="),
        (RULES["cron"] + RULES["retry"], ":4: rule[1]: is a rule of retry, and one before it is of cron: give each"),
        (RULES["cron"] + RULES["flow"], "is a rule of cron, and one before it is of workflow"),
        ('[[rule]]\nmatch = { type = "a" }\nresult = "error"\n', "is a file of results, which cannot be simulated"),
        (
            '[[rule]]\npath = "/in/*"\ntype = "a"\n',
            "is a file of files, which cannot be simulated: it makes tasks when",
        ),
        ('[[channel]]\nkind = "log"\n[[rule]]\nto = "log"\n', "is a file of alerts, which cannot be simulated"),
        ("[[rule]\n", ":1: "),
    ],
)
def test_what_cannot_be_told(tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, said: str) -> None:
    """A file of which it is not certain what it is for is refused, with the place and the nearest."""
    found = simulated(tmp_path, capfd, {"rules": text}, *DAY)
    assert (found.code, found.out) == (2, "")
    assert f"{tmp_path}/rules.toml" in found.err
    assert said in found.err
    assert "Traceback" not in found.err


def test_a_mistake_in_a_known_file_is_told_by_its_loader(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All mistakes of all files are told at once, each with file, line, key and the nearest; nothing is printed."""
    files = {
        "cron": RULES["cron"] + '[[rule]]\ncron = "61 * * * *"\ntype = "x"\ntsak = "y"\n',
        "chain": RULES["chain"] + 'task = "{parent.valu}"\n',
        "retry": RULES["retry"] + 'backof = "fixed"\n',
        "flow": RULES["flow"] + 'on_failure = "stopp"\n',
        "results": '[[rule]]\nmatch = { tpye = "a" }\nresult = "eror"\nshare = "110%"\nduration = "soon"\n'
        'meta = { x = "{y}" }\n',
    }
    found = simulated(tmp_path, capfd, files, *DAY)

    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("taskbus: error: 10 mistakes:\n")
    for said in (
        "cron.toml:5: rule[1].cron: '61 * * * *': '61' does not fit the minute",
        "cron.toml:7: rule[1].tsak: unknown key; did you mean 'task'?",
        "chain.toml:4: rule[0].task: unknown token {parent.valu}; did you mean 'parent.value'?",
        "retry.toml:4: rule[0].backof: unknown key; did you mean 'backoff'?",
        "flow.toml:3: job[0].on_failure: 'stopp' is none of stop, continue, compensate",
        "results.toml:2: rule[0].match.tpye: unknown key; did you mean 'type'?",
        "results.toml:3: rule[0].result: 'eror' is nothing a task comes to; did you mean 'error'?",
        "results.toml:4: rule[0].share: must be a part of all tasks",
        "results.toml:5: rule[0].duration: 'soon' is not a duration",
        "results.toml:6: rule[0].meta.x: unknown token {y}",
    ):
        assert f"{tmp_path}/{said}" in found.err


def test_a_result_is_none_to_match_by(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A task that is yet to be done has no result."""
    results = '[[rule]]\nmatch = { result = "error" }\nresult = "error"\n'
    found = simulated(tmp_path, capfd, {"cron": RULES["cron"], "results": results}, *DAY)
    assert found.code == 2
    assert "results.toml:2: rule[0].match.result: a task has none before it is done" in found.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["corn={cron}"], "there is no taskmaster 'corn'; did you mean 'cron'?"),
        (["delay={cron}"], "delay cannot be simulated: it has no rules, and is always at work in a simulation"),
        (["retry={cron}"], "cron.toml:1: rule[0]: the rule has no 'match'"),
        (["{cron}", "{folder}/missing.toml"], "missing.toml: cannot be read: No such file"),
        (["{cron}", "--timezone", "Europe/Berln"], "--timezone: 'Europe/Berln' is not a time zone; did you mean"),
        (["{cron}", "--summary", "dya"], "'dya' is not one of 'all', 'month', 'day', 'hour'"),
        (["{cron}", "--results", "{folder}/no.toml"], "no.toml: cannot be read"),
        (["{cron}", "--limit", "0"], "0 is not in the range x>=1"),
        (["{cron}", "--to", "2025-12-31"], "--to must be later than --from"),
        (["{cron}", "--for", "1d"], "give --to or --for, not both"),
        (["{cron}", "--from", "yesterday"], "--from: 'yesterday' is no moment"),
        (["{cron}", "--to", "2026-13-01"], "--to: month must be in 1..12"),
    ],
)
def test_wrong_options(tmp_path: Path, capfd: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    """A wrong option is told as it stands, and nothing is simulated."""
    (cron,) = write(tmp_path, {"cron": RULES["cron"]})
    given = [arg.replace("{cron}", cron).replace("{folder}", str(tmp_path)) for arg in args]
    found = simulated(tmp_path, capfd, {}, *DAY, *given)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert "Traceback" not in found.err


def test_no_end_is_a_mistake(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without --to and --for nothing is simulated."""
    found = simulated(tmp_path, capfd, {"cron": RULES["cron"]}, "--from", "2026-01-01")
    assert found.code == 2
    assert "until when? Give --to or --for" in found.err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("chain", RULES["chain"] + 'topic = "done"\n', "chain.toml: rule a>b sends to the topic done"),
        ("retry", RULES["retry"] + 'topic = "done"\n', "retry.toml: rule a sends to the topic done"),
        ("flow", RULES["flow"] + 'topic = "done"\n', "flow.toml: the job j sends to the topic done"),
    ],
)
def test_topics_are_checked_as_by_the_applications(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    """What the applications refuse to start with is refused here."""
    found = simulated(tmp_path, capfd, {name: text}, *DAY)
    assert found.code == 2
    assert said in found.err
