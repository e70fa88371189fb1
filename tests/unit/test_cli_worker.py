"""``taskbus worker``: built-in workers and the user's own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.taskbus_command import start, taskbus

HELLO = """
from task import Context, Outcome, Worker, complete

class Hello(Worker):
    type = "hello"
    def do_task(self, ctx: Context) -> Outcome:
        return complete(f"hi {self.task.value}")
"""
TASK = b'{"type":"hello","task":"you"}\n'


def test_built_in_worker_runs(tmp_path: Path) -> None:
    """taskbus worker hello-world --in FILE --out FILE does the tasks of the file."""
    (tmp_path / "tasks.jsonl").write_bytes(b'{"type":"hello-world","task":"you"}\n' * 3)
    result = taskbus("worker", "hello-world", "--in", "tasks.jsonl", "--out", "done.jsonl", cwd=tmp_path)

    assert (result.code, result.out) == (0, "")
    assert (tmp_path / "done.jsonl").read_text().count('"msg":"hello you"') == 3


@pytest.mark.parametrize(
    "target", ["./hello.py", "hello.py:Hello", "{folder}/hello.py", "pack.mod:Hello", "hello:Hello"]
)
def test_own_worker_runs(tmp_path: Path, target: str) -> None:
    """A file, with or without the class, and a module of the current folder."""
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "mod.py").write_text(HELLO)
    (tmp_path / "hello.py").write_text(HELLO)
    result = taskbus("worker", target.replace("{folder}", str(tmp_path)), "--in", "-", cwd=tmp_path, stdin=TASK)

    assert result.code == 0
    assert [task["msg"] for task in result.tasks] == ["hi you"]


def test_own_packages_may_be_called_as_ours(tmp_path: Path) -> None:
    """User code that imports its own apps, workers and taskmasters gets its own."""
    for name in ("apps", "workers", "taskmasters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"mine = '{name}'\n")
    (tmp_path / "workers" / "hello.py").write_text(
        "import apps, workers, taskmasters\nassert apps.mine + workers.mine + taskmasters.mine\n" + HELLO
    )
    result = taskbus("worker", "workers.hello:Hello", "--in", "-", cwd=tmp_path, stdin=TASK)

    assert result.code == 0, result
    assert [task["msg"] for task in result.tasks] == ["hi you"]


@pytest.mark.parametrize("target", ["hello-world", "./hello.py"])
def test_help_after_the_target_is_the_workers(tmp_path: Path, target: str) -> None:
    """--help, like every option after the target, is for the worker application."""
    (tmp_path / "hello.py").write_text(HELLO)
    result = taskbus("worker", target, "--help", cwd=tmp_path)

    assert result.code == 0
    assert result.out.startswith(f"Usage: taskbus worker {target}")
    assert "--max-in-progress" in result.out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["helo-world"], "no built-in worker is called 'helo-world'; did you mean 'hello-world'?"),
        (["nothing-like-it"], "known: hello-world, noop, shell"),
        (["./missing.py"], "there is no file ./missing.py"),
        (["missing.module:Class"], "missing.module cannot be imported"),
        (["hello:Helo"], "did you mean 'Hello'?"),
        (["broken.py"], "broken.py cannot be imported: SyntaxError"),
        (["--bus", "null:", "hello-world"], "options come after the worker"),
        ([], "Missing argument 'TARGET'"),
        (["hello-world", "--max-in-porgress", "2"], "--max-in-progress"),
        (["hello-world", "--timeout", "soon"], "'soon' is not a duration"),
        (["hello-world", "--in", "missing.jsonl"], "missing.jsonl"),
        (["hello-world", "--in", "."], "directory"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, args: list[str], told: str) -> None:
    """What cannot be run is a usage error that says why."""
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "broken.py").write_text("def f(:\n")
    result = taskbus("worker", *args, cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert told in result.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("target", ["hello-world", "./hello.py"])
def test_signal_stops_it_gracefully(tmp_path: Path, target: str, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a worker with exit code 0 and everything done written."""
    (tmp_path / "hello.py").write_text(HELLO.replace('"hello"', '"hello-world"'))
    os.mkfifo(tmp_path / "tasks")
    process = start("worker", target, "--in", "tasks", "--out", "done.jsonl", cwd=tmp_path)
    done = tmp_path / "done.jsonl"
    with (tmp_path / "tasks").open("wb") as stream:
        stream.write(b'{"type":"hello-world","task":"you"}\n')
        stream.flush()
        wait_until(lambda: done.exists() and done.read_text().endswith("\n"))
        process.send_signal(number)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert b"Traceback" not in err
    assert done.read_text().count('"result":"complete"') == 1
