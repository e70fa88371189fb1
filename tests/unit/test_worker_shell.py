"""The shell worker, its ``do_task`` called directly with real programs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from task.context import CancelReason, Context
from task.outcome import Outcome, Result
from task.task import Task
from tests.helpers import is_running, wait_until
from workers.shell.argv import Argv
from workers.shell.program import KEPT
from workers.shell.worker import Shell, environment


def do(*argv: str, value: str = "", **options: Any) -> Outcome:
    task = Task("shell", value, id="id-1")
    return Shell(argv=Argv(argv), **options)(task).do_task(Context(task))


def sh(script: str, *, value: str = "", **options: Any) -> Outcome:
    return do("sh", "-c", script.replace("{", "{{").replace("}", "}}"), "sh", "{value}", value=value, **options)


def wait_for_text(path: Path) -> str:
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


def test_success_is_complete_with_the_output() -> None:
    """Exit code 0 completes the task; its output is the message."""
    assert do("echo", "hello {value}", value="big  world; exit 3") == Outcome(
        Result.COMPLETE, "hello big  world; exit 3"
    )


def test_failure_is_an_error_with_code_and_output() -> None:
    """Another exit code is an error; the message has the code and both output streams in order."""
    outcome = sh("echo out; echo err >&2; exit 3")

    assert outcome == Outcome(Result.ERROR, "exit code 3: out\nerr", {"exit_code": "3"})


def test_signal_is_named() -> None:
    """A program ended by a signal is an error that names it."""
    assert sh("kill -SEGV $$") == Outcome(Result.ERROR, "ended by SIGSEGV", {"exit_code": "-11"})


def test_codes_choose_the_result() -> None:
    """Given codes have given results; the others are errors."""
    codes = {2: Result.WARN, 3: Result.ALERT}

    assert [sh(f"exit {code}", codes=codes).result for code in (0, 1, 2, 3)] == [
        Result.COMPLETE,
        Result.ERROR,
        Result.WARN,
        Result.ALERT,
    ]


def test_missing_program_is_an_alert() -> None:
    """A program that is not there is nothing a retry helps against; the message names it."""
    outcome = do("no-such-program-7")

    assert outcome == Outcome(Result.ALERT, "cannot run 'no-such-program-7': No such file or directory")


def test_program_that_cannot_be_executed_is_an_alert(tmp_path: Path) -> None:
    """A file without execute permission, a directory, and a file that is no program are alerts."""
    plain = tmp_path / "plain"
    plain.write_text("x")
    plain.chmod(0o644)
    assert do(str(plain)) == Outcome(Result.ALERT, f"cannot run {str(plain)!r}: Permission denied")
    assert do(str(tmp_path)) == Outcome(Result.ALERT, f"cannot run {str(tmp_path)!r}: Permission denied")

    plain.chmod(0o755)
    assert do(str(plain)) == Outcome(Result.ALERT, f"cannot run {str(plain)!r}: Exec format error")


def test_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program sees PATH, HOME, LANG, TZ and what is passed on purpose, and no other variable."""
    for name in ("HOME", "LANG", "TZ", "SECRET_TOKEN", "WANTED"):
        monkeypatch.setenv(name, name.lower())
    outcome = do("/usr/bin/env", env=environment(("WANTED", "ABSENT")))

    names = {line.partition("=")[0] for line in outcome.msg.splitlines()}
    assert names == {"PATH", "HOME", "LANG", "TZ", "WANTED"}


def test_standard_input_is_empty_by_default() -> None:
    """A program that reads its input sees the end at once."""
    assert do("cat").msg == ""


def test_standard_input_can_be_the_task() -> None:
    """With stdin the program reads the task as JSON, however large, and may leave it unread."""
    value = "x" * 300_000

    assert orjson.loads(do("cat", value="small", stdin=True).msg)["task"] == "small"
    assert int(do("wc", "-c", value=value, stdin=True).msg) > len(value)
    assert do("true", value=value, stdin=True).result is Result.COMPLETE


def test_huge_output_keeps_its_tail() -> None:
    """Only the end of a large output is kept, and marked as such."""
    outcome = sh("seq 1 2000000; printf end")

    assert outcome.msg.startswith("…")
    assert outcome.msg.endswith("1999999\n2000000\nend")
    assert len(outcome.msg) <= KEPT + 1


def test_cut_through_a_character_leaves_no_replacement() -> None:
    """The tail begins at a whole character."""
    outcome = sh("yes äöü | head -2000 | tr -d '\\n'; printf x")

    assert outcome.msg.startswith("…")
    assert "\ufffd" not in outcome.msg


def test_binary_output_is_replaced() -> None:
    """Bytes that are not UTF-8 do not hurt; the message can be written as JSON."""
    outcome = sh(r"printf 'a\377\376b\000c'")

    assert outcome.msg == "a\ufffd\ufffdb\0c"
    orjson.dumps(outcome.msg)


def test_program_that_closes_its_output_is_waited_for() -> None:
    """The task ends with the program, not with its output."""
    outcome = sh("echo early; exec >&- 2>&-; sleep 0.2; exit 4")

    assert outcome == Outcome(Result.ERROR, "exit code 4: early", {"exit_code": "4"})


def test_child_left_behind_with_the_output_is_not_waited_for(tmp_path: Path) -> None:
    """A background child that holds the output open does not hold the task."""
    began = time.monotonic()
    outcome = sh(f"sleep 60 & echo $! > {tmp_path}/pid; echo done")
    pid = int(wait_for_text(tmp_path / "pid"))

    assert outcome == Outcome(Result.COMPLETE, "done")
    assert time.monotonic() - began < 30
    os.kill(pid, 9)


@pytest.mark.parametrize("reason", [CancelReason.TIMEOUT, CancelReason.SHUTDOWN])
def test_cancel_ends_the_whole_group(tmp_path: Path, reason: CancelReason) -> None:
    """A task told to stop ends its program and the program's children, and says so."""
    task = Task("shell", "")
    ctx = Context(task)
    script = f"sleep 60 & echo $! > {tmp_path}/child; echo begun; echo $$ > {tmp_path}/main; wait"
    outcomes: list[Outcome] = []
    shell = Shell(argv=Argv(["sh", "-c", script]))
    thread = threading.Thread(target=lambda: outcomes.append(shell(task).do_task(ctx)))
    thread.start()
    pids = [int(wait_for_text(tmp_path / name)) for name in ("child", "main")]
    ctx._cancel(reason)
    thread.join(10)

    assert [outcome.result for outcome in outcomes] == [Result.ERROR]
    assert outcomes[0].msg == f"told to stop ({reason}), ended by SIGTERM: begun"
    wait_until(lambda: not any(map(is_running, pids)))


def test_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the grace time comes SIGKILL, for children that ignore SIGTERM too."""
    task = Task("shell", "")
    ctx = Context(task)
    script = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/main; wait; wait"
    outcomes: list[Outcome] = []
    shell = Shell(argv=Argv(["sh", "-c", script]), grace=0.1)
    thread = threading.Thread(target=lambda: outcomes.append(shell(task).do_task(ctx)))
    thread.start()
    pids = [int(wait_for_text(tmp_path / name)) for name in ("child", "main")]
    ctx._cancel(CancelReason.TIMEOUT)
    thread.join(10)

    assert [outcome.msg for outcome in outcomes] == ["told to stop (timeout), ended by SIGKILL"]
    wait_until(lambda: not any(map(is_running, pids)))


def test_children_get_the_grace_time_when_the_program_has_ended(tmp_path: Path) -> None:
    """Children still writing after the program ended get the grace time before SIGKILL."""
    task = Task("shell", "")
    ctx = Context(task)
    child = f"trap 'sleep 0.1; echo tidy; exit' TERM; echo $$ > {tmp_path}/child; while :; do sleep 0.02; done"
    shell = Shell(argv=Argv(["sh", "-c", 'sh -c "$1" & wait', "sh", child]), grace=20.0)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(shell(task).do_task(ctx)))
    thread.start()
    wait_for_text(tmp_path / "child")
    ctx._cancel(CancelReason.TIMEOUT)
    thread.join(15)

    assert [outcome.msg.rpartition("\n")[2] for outcome in outcomes] == ["tidy"]
