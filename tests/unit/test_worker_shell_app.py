"""The shell worker as an application: its options, and what it refuses to start with."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.helpers import is_running, wait_until
from tests.taskbus_command import Result, start, taskbus


def shell(folder: Path, *args: str, value: str = "", kind: str = "shell") -> Result:
    task = json.dumps({"type": kind, "task": value, "id": "i"}).encode()
    return taskbus(
        "worker", "shell", "--in", "-", *args, cwd=folder, stdin=task, env={"WANTED": "yes", "UNWANTED": "no"}
    )


def test_runs_the_program_for_the_task(tmp_path: Path) -> None:
    """The program gets its arguments filled in; the done task has its output."""
    result = shell(tmp_path, "--", "printf", "%s|", "a b", "{path}", "{param:n}", value="s3://b/x y?n=$HOME")

    (done,) = result.tasks
    assert result.code == 0
    assert (done["result"], done["msg"]) == ("complete", "a b|/x y|$HOME|")


def test_options_before_the_program_need_no_dashes(tmp_path: Path) -> None:
    """Everything from the program's name on is the program's."""
    (done,) = shell(tmp_path, "--type", "greet", "echo", "--in", "{type}", kind="greet").tasks

    assert done["msg"] == "--in greet"


def test_options_reach_the_program(tmp_path: Path) -> None:
    """Codes, variables and standard input are as asked for."""
    script = 'cat; echo "$WANTED $UNWANTED"; exit 9'
    options = ["--warn-codes", "3, 9", "--alert-codes", "4", "--pass-env", "WANTED", "--stdin", "task"]
    (done,) = shell(tmp_path, *options, "--", "sh", "-c", script).tasks

    assert done["result"] == "warn"
    assert done["meta"]["exit_code"] == "9"
    assert done["msg"] == 'exit code 9: {"type":"shell","task":"","id":"i"}yes'


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "which program?"),
        (["--", "no-such-program-7"], "there is no program 'no-such-program-7' that can be run"),
        (["--", "cat", "{vaule}"], "did you mean 'value'?"),
        (["--warn-codes", "0", "--", "cat"], "'0' is not an exit code from 1 to 255"),
        (["--alert-codes", "1,x", "--", "cat"], "'x' is not an exit code from 1 to 255"),
        (["--stdin", "all", "--", "cat"], "'all' is none of none, task"),
        (["--isolation", "process", "--", "cat"], "every program is a process of its own already"),
        (["--pas-env", "A", "--", "cat"], "--pass-env"),
    ],
)
def test_wrong_configuration_starts_nothing(tmp_path: Path, args: list[str], told: str) -> None:
    """A mistake is told before any task is received."""
    result = shell(tmp_path, *args)

    assert (result.code, result.out) == (2, "")
    assert told in result.err


def test_no_message_shows_what_was_passed(tmp_path: Path) -> None:
    """Values of environment variables reach neither logs nor errors."""
    result = shell(tmp_path, "--pass-env", "WANTED", "--log-level", "debug", "--", "false")

    assert result.tasks[0]["result"] == "error"
    assert "yes" not in result.err


def test_time_limit_ends_the_program(tmp_path: Path) -> None:
    """A program over --timeout is ended with its children and the task is an error that says so."""
    script = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    (done,) = shell(tmp_path, "--timeout", "300ms", "--", "sh", "-c", script).tasks

    assert done["result"] == "error"
    assert "told to stop (timeout), ended by SIGTERM" in done["msg"]
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not is_running(child))


def test_shutdown_ends_the_program_and_keeps_the_task(tmp_path: Path) -> None:
    """After the kill time the program is ended, no done task is written, and the exit code tells."""
    os.mkfifo(tmp_path / "tasks")
    script = f"echo $$ > {tmp_path}/program; exec sleep 60"
    process = start("worker", "shell", "--in", "tasks", "--kill-time", "100ms", "--", "sh", "-c", script, cwd=tmp_path)
    with (tmp_path / "tasks").open("wb") as stream:
        stream.write(b'{"type":"shell","task":"x"}\n')
        stream.flush()
        wait_until(lambda: (tmp_path / "program").exists() and (tmp_path / "program").read_text().endswith("\n"))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)

    assert (process.returncode, out) == (4, b"")
    program = int((tmp_path / "program").read_text())
    wait_until(lambda: not is_running(program))
