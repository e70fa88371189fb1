"""Workers with a defect of each kind, and one without: what `taskbus certify` says of them, by real processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from apps.certify.effects import Kind
from apps.certify.errors import CertifyError
from apps.certify.examine import SCENARIOS, Examination, Scenario
from apps.certify.report import certified
from apps.certify.run import Plan, Runner
from apps.certify.state import FolderProbe
from task.errors import SettingsError
from task.task import Task
from tests.taskbus_command import taskbus

#: Places to kill at. With the seed of these tests three are enough; TASKBUS_CERTIFY_KILLS=100 takes every line.
KILLS = int(os.environ.get("TASKBUS_CERTIFY_KILLS", "3"))

HEAD = """\
import os, time, tempfile, uuid
from pathlib import Path
from task import Context, Outcome, Worker, complete, error

out = Path("out")


class It(Worker):
    type = "t"
    scratch = ""

    def do_task(self, ctx: Context) -> Outcome:
        value = self.task.value
"""
GOOD = """\
        with open(out / f".{value}.part", "w", buffering=1) as file:
            file.write("first\\n")
            file.write("second\\n")
        os.replace(out / f".{value}.part", out / value)
        return complete(f"took {time.perf_counter() % 9:.3f}s at 2026-01-01T0{time.time_ns() % 9}:00:00Z")
"""
#: Scenario, kind, and the worker's method.
BAD = {
    "a name by chance": (
        "once",
        Kind.NAME,
        """\
        (out / uuid.uuid4().hex).write_text(value)
        return complete()
""",
    ),
    "a content by the clock": (
        "once",
        Kind.CONTENT,
        """\
        (out / value).write_text(str(time.time_ns()))
        return complete()
""",
    ),
    "a line more each time": (
        "twice",
        Kind.APPENDED,
        """\
        with open(out / f"{value}.log", "a") as file:
            file.write(f"did {value}\\n")
        return complete()
""",
    ),
    "a counter": (
        "twice",
        Kind.COUNTED,
        """\
        file = out / f"{value}.hits"
        file.write_text(f"hits {int(file.read_text().split()[1]) + 1 if file.exists() else 1}")
        return complete()
""",
    ),
    "a number for each file": (
        "twice",
        Kind.EXTRA,
        """\
        (out / f"{value}-{len(list(out.iterdir()))}").touch()
        return complete()
""",
    ),
    "fails when done before": (
        "twice",
        Kind.RESULT,
        """\
        try:
            (out / value).touch(exist_ok=False)
        except FileExistsError:
            return error("it exists")
        return complete()
""",
    ),
    "reads what another wrote": (
        "order",
        Kind.ORDER,
        """\
        (out / value).write_text(" ".join(sorted(path.name for path in out.iterdir() if path.name < value)))
        return complete()
""",
    ),
    "shares a variable": (
        "side-by-side",
        Kind.INTERFERES,
        """\
        It.scratch = value
        shared = It.scratch
        shared = It.scratch
        shared = It.scratch
        (out / value).write_text(It.scratch)
        return complete()
""",
    ),
    "trusts a file that is there": (
        "killed",
        Kind.HALF,
        """\
        if not (out / value).exists():
            with open(out / value, "w", buffering=1) as file:
                file.write("first\\n")
                file.write("second\\n")
        return complete()
""",
    ),
    "a temporary file by chance": (
        "killed",
        Kind.LEFT,
        """\
        number, name = tempfile.mkstemp(dir=out)
        os.write(number, value.encode())
        os.replace(name, out / value)
        os.close(number)
        return complete()
""",
    ),
    "says it is done before it is": (
        "killed",
        Kind.LOST,
        """\
        if not (out / f"{value}.mark").exists():
            (out / f"{value}.mark").touch()
            (out / value).touch()
        return complete()
""",
    ),
}


def examination(folder: Path, code: str, values: str = "ab", *, seed: int = 1, **options: int) -> Examination:
    (folder / "it.py").write_text(HEAD + code)
    tasks = [Task("t", value, id=f"id-{value}") for value in values]
    probe = FolderProbe(str(folder / "out"), None)
    return Examination(Runner("./it.py", tasks, probe, patience=240.0), seed=seed, **options)


def examine(folder: Path, code: str, *scenarios: str, values: str = "ab", **options: int) -> list[Scenario]:
    found = list(examination(folder, code, values, **options).examine(scenarios))
    assert [scenario.name for scenario in found] == list(scenarios)
    return found


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers write into the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BAD)
def test_a_defect_is_found_and_named(name: str, tmp_path: Path) -> None:
    """Each kind of side effect is found by the scenario that shows it, and told with its place and its task."""
    scenario, kind, code = BAD[name]

    values = "ab" if scenario in ("order", "side-by-side") else "a"

    (found,) = examine(tmp_path, code, scenario, values=values, orders=0, kills=KILLS)

    assert kind in {defect.kind for defect in found.defects}, found
    (defect, *_) = [defect for defect in found.defects if defect.kind is kind]
    assert defect.where
    assert defect.detail
    assert not certified([found])
    if scenario in ("order", "side-by-side"):
        assert sorted(defect.tasks) == ["a", "b"], found
    if scenario == "killed":
        assert "it.py:" in defect.seen, found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_task_with_the_defect_is_named(tmp_path: Path) -> None:
    """Of several tasks the one that does it is found, and it alone."""
    code = """\
        with open(out / value, "a" if value == "b" else "w") as file:
            file.write("did it\\n")
        return complete()
"""

    (found,) = examine(tmp_path, code, "twice", values="abc")

    assert [(defect.kind, defect.tasks, defect.where) for defect in found.defects] == [(Kind.APPENDED, ("b",), "b")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_good_worker_is_certified(tmp_path: Path) -> None:
    """A worker that replaces what it wrote passes every scenario, although its message tells times; killed for real."""
    made = examination(tmp_path, GOOD, kills=KILLS, orders=1)
    found = list(made.examine(SCENARIOS))

    assert [scenario.defects for scenario in found] == [[]] * 5
    assert [scenario.notes for scenario in found] == [[]] * 5
    assert certified(found)


def test_a_folder_that_stays_empty_is_told(tmp_path: Path) -> None:
    """A state that nothing was written to shows nothing, and the report says so rather than look like a proof."""
    (found,) = examine(tmp_path, "        return complete()\n", "once")

    assert not found.defects
    assert len(found.notes) == 1
    assert "out was empty after all tasks were done: does the worker write elsewhere?" in found.notes[0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_happen_and_tasks_come_again(tmp_path: Path) -> None:
    """Each planned kill ends a process before its line, and the task is done all the same."""
    (tmp_path / "it.py").write_text(HEAD + GOOD)
    runner = Runner("./it.py", [Task("t", "a", id="1"), Task("t", "b", id="2")], FolderProbe("out", None))

    places = runner.run(Plan(((0, 1),), record=True)).places
    kills = (next(each for each in places if each.task == 0), [each for each in places if each.task == 1][3])
    run = runner.run(Plan(((0, 1),), kills=kills))
    runner.close()

    assert run.killed == 2
    assert {position: outcome.result for position, outcome in run.outcomes[0].items()} == {0: "complete", 1: "complete"}
    assert sorted(run.state) == ["a", "b"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_task_that_takes_long_is_killed_from_outside(tmp_path: Path) -> None:
    """What is no Python of the user's, such as a program of the shell worker, is killed in the midst of its time."""
    script = tmp_path / "half.sh"
    script.write_text('test -e "out/$1" && exit 0\necho one > "out/$1"; sleep 1; echo two >> "out/$1"\n')
    tasks = [Task("shell", "a", id="1")]
    runner = Runner("shell", tasks, FolderProbe("out", None), ["--", "sh", str(script), "{value}"], patience=240.0)

    (found,) = Examination(runner, seed=1).examine(["killed"])

    assert [defect.kind for defect in found.defects] == [Kind.HALF], found
    assert "after its start" in found.defects[0].seen


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_coroutine_is_watched_too(tmp_path: Path) -> None:
    """The lines of an async worker are killed at as well."""
    code = HEAD.replace("def do_task", "async def do_task") + BAD["says it is done before it is"][2]
    (tmp_path / "it.py").write_text(code)
    runner = Runner("./it.py", [Task("t", "a", id="1")], FolderProbe("out", None), patience=240.0)

    (found,) = Examination(runner, seed=1, kills=KILLS).examine(["killed"])

    assert Kind.LOST in {defect.kind for defect in found.defects}


@pytest.mark.timeout(300)
def test_the_bus_of_the_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever environment and options say, tasks come from and go to a bus of their own."""
    config = tmp_path / "mine.toml"
    config.write_text('bus = "sqlite:mine.db"\nin = "mine.jsonl"\nout = "mine.out"\ndone_topic = "mine"\n')
    for name in ("BUS", "IN", "OUT"):
        monkeypatch.setenv(f"TASKBUS_{name}", f"lines:{tmp_path}/{name}")
    monkeypatch.setenv("TASKBUS_CONFIG", str(config))
    (tmp_path / "it.py").write_text(HEAD + GOOD)
    task, probe = Task("t", "a", id="1"), FolderProbe("out", None)

    run = Runner("./it.py", [task], probe, ["--config", str(config)]).run(Plan(((0,),)))

    assert run.outcomes[0][0].result == "complete"
    with pytest.raises(SettingsError, match="--bus: is set by certify"):
        Runner("./it.py", [task], probe, ["--bus=sqlite:mine.db"])
    Runner("shell", [task], probe, ["--", "program", "--bus", "x"])
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"it.py", "mine.toml", "out"}


@pytest.mark.timeout(300)
def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    """A worker that is not there, one of another type, one that does not end, and too few runs."""
    probe = FolderProbe("out", None)
    task = Task("t", "a", id="1")
    with pytest.raises(SettingsError, match=r"there is no file none\.py"):
        Runner("none.py", [task], probe).run(Plan(((0,),)))

    (tmp_path / "it.py").write_text(HEAD + "        time.sleep(300)\n        return complete()\n")
    with pytest.raises(CertifyError, match="not done within 3 s"):
        Runner("./it.py", [task], probe, patience=3.0).run(Plan(((0,),)))

    (tmp_path / "it.py").write_text(HEAD + GOOD)
    with pytest.raises(SettingsError, match="another type"):
        list(Examination(Runner("./it.py", [Task("other", "a", id="1")], probe), seed=1).examine(["once"]))
    (found,) = Examination(Runner("./it.py", [task], probe, runs=1), seed=1).examine(["once"])
    assert not certified([found])
    assert found.notes[0].startswith("not finished")


@pytest.mark.timeout(300)
def test_a_worker_that_fails_is_not_praised_for_it(tmp_path: Path) -> None:
    """Tasks that fail whenever they are done show nothing of what they do when they succeed, and the report says so."""
    (found,) = examine(tmp_path, '        return error("no such host")\n', "once")

    assert found.defects == []
    assert "2 of 2 tasks fail when done once (a: error (no such host)" in found.notes[0]


@pytest.mark.timeout(300)
def test_the_command(tmp_path: Path) -> None:
    """0 certified, 1 not, 2 for wrong use; the JSON tells everything; the folder is left empty."""
    (tmp_path / "good.py").write_text(HEAD + GOOD)
    (tmp_path / "bad.py").write_text(HEAD + BAD["a content by the clock"][2])
    (tmp_path / "tasks.jsonl").write_text('{"type":"t","task":"a"}\n{"type":"t","task":"a"}\n')
    (tmp_path / "mixed.jsonl").write_text('{"type":"t","task":"a"}\n{"type":"u","task":"a"}\n')
    options = ("--state-dir", "out", "--only", "once", "--seed", "1")

    good = taskbus("certify", "./good.py", "tasks.jsonl", *options, cwd=tmp_path)
    bad = taskbus("certify", "./bad.py", "tasks.jsonl", *options, "--json", cwd=tmp_path)

    assert (good.code, bad.code) == (0, 1), (good, bad)
    assert "certified after 2 runs; left out: twice, order, side-by-side, killed" in good.out
    told = json.loads(bad.out)
    assert told["certified"] is False
    assert told["scenarios"][0]["defects"][0]["kind"] == str(Kind.CONTENT)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "out" / "mine").touch()
    for wrong in (
        ("./good.py", "tasks.jsonl", *options),
        ("./good.py", "mixed.jsonl"),
        ("./good.py", "none.jsonl"),
        ("./good.py", "tasks.jsonl", "--state-command", "true"),
        ("./good.py", "tasks.jsonl", "--state-command", "true", "--state-dir", "x"),
        ("./good.py", "tasks.jsonl", "--ignore", "x"),
    ):
        assert taskbus("certify", *wrong, cwd=tmp_path).code == 2, wrong


@pytest.mark.timeout(300)
def test_a_state_by_query(tmp_path: Path) -> None:
    """Rows that are inserted again are found in a database that --reset makes anew."""
    (tmp_path / "it.py").write_text(
        HEAD
        + "        import sqlite3\n"
        + '        with sqlite3.connect("state.db", timeout=30) as database:\n'
        + '            database.execute("insert into t values (?)", [value])\n'
        + "        database.close()\n"
        + "        return complete()\n"
    )
    (tmp_path / "reset.py").write_text(
        "import os, sqlite3\nfor name in ('state.db',):\n    os.path.exists(name) and os.unlink(name)\n"
        "database = sqlite3.connect('state.db')\ndatabase.execute('create table t (name text)')\ndatabase.close()\n"
    )
    (tmp_path / "tasks.jsonl").write_text('{"type":"t","task":"a"}\n')
    state = ("--state-sql", "sqlite:state.db", "select name from t", "--reset", f"{sys.executable} reset.py")

    told = taskbus("certify", "./it.py", "tasks.jsonl", *state, "--only", "twice", cwd=tmp_path)

    assert told.code == 1, told
    assert "appended again: the rows" in told.out
