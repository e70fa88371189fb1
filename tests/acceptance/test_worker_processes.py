"""Worker applications as real processes: signals, ends, sharing, isolation, and the folder they are started in."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from task import Task
from tests.acceptance.support import Odd, as_lines, pending, publish, taken, task_line
from tests.helpers import is_running, wait_until
from tests.taskbus_command import command_line, environment, taskbus

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
ISOLATIONS = pytest.mark.parametrize("isolation", ["thread", "process"])


@ISOLATIONS
@SIGNALS
def test_a_signal_lets_the_running_task_end(tmp_path: Path, number: signal.Signals, isolation: str) -> None:
    """It ends within the kill time and counts; nothing else is begun; exit code 0."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, task_line("wait:go", "1"), task_line("", "2"))
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--status-port", "0", "--isolation", isolation) as process:
        odd.begun("wait")
        process.send_signal(number)
        odd.stopping()
        (tmp_path / "go").touch()

    assert odd.code == 0
    assert [(task["id"], task["result"], task["msg"]) for task in taken(url, "done")] == [("1", "complete", "1")]
    assert pending(url) == (1, 0, 0)


@SIGNALS
def test_a_second_signal_hastens(tmp_path: Path, number: signal.Signals) -> None:
    """The kill time is over: the task is told to stop and handed back; exit code 4. The next instance does it."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, task_line("wait:go"))
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--status-port", "0", "--kill-time", "1h") as process:
        odd.begun("wait")
        process.send_signal(number)
        odd.stopping()
        assert process.poll() is None
        process.send_signal(number)
    assert odd.code == 4
    assert pending(url) == (1, 0, 0)

    (tmp_path / "go").touch()
    assert odd.run("--bus", url, "--drain").code == 0
    assert [task["msg"] for task in taken(url, "done")] == ["1"]


@pytest.mark.parametrize(("isolation", "deed"), [("thread", "ignore"), ("process", "ignore"), ("process", "wait")])
def test_a_task_that_outlasts_the_kill_time(tmp_path: Path, isolation: str, deed: str) -> None:
    """It is handed back, whether or not it listens; exit code 4; the next instance does it, as attempt 1."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, task_line(f"{deed}:go"))
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--kill-time", "10ms", "--isolation", isolation) as process:
        at = odd.begun(deed)
        process.terminate()
    assert odd.code == 4
    wait_until(lambda: not is_running(at))

    (tmp_path / "go").touch()
    assert odd.run("--bus", url, "--drain").code == 0
    assert [task["msg"] for task in taken(url, "done")] == ["1"]


def test_a_stop_before_the_start_is_over(tmp_path: Path) -> None:
    """A worker that waits for the reader of its output pipe can be stopped."""
    os.mkfifo(tmp_path / "out")
    odd = Odd(tmp_path)
    with odd.running("--bus", "sqlite:work.db", "--out", "out", "--status-port", "0") as process:
        assert odd.ask("readyz") == (503, "not receiving\n")
        process.terminate()

    assert odd.code == 0


def test_lifetime(tmp_path: Path) -> None:
    """--lifetime N does N tasks to their end and leaves the others; exit code 0."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, *[task_line()] * 7)
    odd = Odd(tmp_path).run("--bus", url, "--lifetime", "3", "--max-in-progress", "2")

    assert odd.code == 0
    assert len(taken(url, "done")) == 3
    assert pending(url) == (4, 0, 0)


def test_drain(tmp_path: Path) -> None:
    """--drain ends when everything is settled, retries included; exit code 0."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, task_line("raise"), *[task_line()] * 50)
    odd = Odd(tmp_path).run("--bus", url, "--drain", "--retries", "2", "--retry-delay", "50ms")

    assert odd.code == 0
    done = taken(url, "done")
    assert sorted(task["result"] for task in done) == ["complete"] * 50 + ["error"]
    assert [letter["attempts"] for letter in taken(url, "odd.dead")] == [3]
    assert pending(url).total == 0


def test_two_instances_share_the_tasks(tmp_path: Path) -> None:
    """2,000 tasks, each done once; both had some of them; both stop with exit code 0."""
    url = f"sqlite:{tmp_path}/work.db"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first, second = Odd(tmp_path / "first"), Odd(tmp_path / "second")
    ids = [f"{number:04d}" for number in range(2000)]
    with first.running("--bus", url) as one, second.running("--bus", url) as other:
        wait_until(lambda: '"event":"started"' in first.log and '"event":"started"' in second.log)
        for start in range(0, 2000, 100):
            publish(url, *(Task("odd", "pid", id=id) for id in ids[start : start + 100]))
        wait_until(lambda: pending(url).total == 0, 60)
        one.terminate()
        other.terminate()

    done = taken(url, "done")
    assert (first.code, second.code) == (0, 0)
    assert sorted(task["id"] for task in done) == ids
    assert {task["msg"] for task in done} == {str(one.pid), str(other.pid)}


def test_the_status_port(tmp_path: Path) -> None:
    """What a running worker tells of itself: statistics, health, readiness, metrics."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, b"bad", task_line(), task_line("wait:go", "long"))
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--status-port", "0") as process:
        odd.begun("wait")
        wait_until(lambda: odd.ask("readyz")[0] == 200)
        statistics = json.loads(odd.ask("")[1])
        assert odd.ask("healthz") == (200, "ok\n")
        metrics = odd.ask("metrics")[1]
        missing = odd.ask("nothing")
        process.terminate()
        odd.stopping()
        assert odd.ask("healthz")[0] == 200
        (tmp_path / "go").touch()

    assert odd.code == 0
    assert (statistics["type"], statistics["topic"], statistics["held"]) == ("odd", "odd", 1)
    assert statistics["results"] == {"dead": 1, "complete": 1}
    (running,) = statistics["in_progress"]
    assert (running["id"], running["value"], running["attempt"]) == ("long", "wait:go", 1)
    assert 0 <= running["seconds"] < 30
    assert 'taskbus_tasks_total{result="complete",task_type="odd"} 1.0' in metrics
    assert 'taskbus_tasks_dead_total{task_type="odd"} 1.0' in metrics
    assert 'taskbus_tasks_in_progress{task_type="odd"} 1.0' in metrics
    assert 'taskbus_ready{task_type="odd"} 1.0' in metrics
    assert missing[0] == 404


def test_a_status_port_that_is_taken(tmp_path: Path) -> None:
    """It is told with address and port, exit code 2, before anything is done."""
    (tmp_path / "other").mkdir()
    other, odd = Odd(tmp_path / "other"), Odd(tmp_path)
    with other.running("--bus", "sqlite:work.db", "--status-port", "0") as process:
        wait_until(lambda: '"event":"started"' in other.log)
        port = other.log.partition('"url":"http://127.0.0.1:')[2].partition("/")[0]
        odd.run("--in", "-", "--status-port", port, stdin=as_lines(task_line()))
        process.terminate()

    assert odd.code == 2
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in odd.err
    assert odd.out == b""


@ISOLATIONS
def test_a_folder_with_names_like_ours(tmp_path: Path, isolation: str) -> None:
    """The user's packages apps, workers and taskmasters are theirs; ``import bus`` is ours, whatever lies there."""
    for name in ("apps", "workers", "taskmasters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"mine = '{name}'\n")
    for name in ("bus.py", "task.py", "click.py", "codec.py"):
        (tmp_path / name).write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "apps" / "jobs.py").write_text(
        "import apps, bus, task, taskmasters, workers\n"
        "class Worker(task.Worker):\n"
        "    type = 'job'\n"
        "    def do_task(self, ctx):\n"
        "        bus.parse_url('sqlite:work.db')\n"
        "        return task.complete(apps.mine + workers.mine + taskmasters.mine)\n"
    )
    args = ("worker", "apps.jobs:Worker", "--in", "-", "--isolation", isolation)
    result = taskbus(*args, cwd=tmp_path, stdin=b'{"type":"job"}\n')

    assert result.code == 0, result
    assert [task["msg"] for task in result.tasks] == ["appsworkerstaskmasters"]


def test_a_worker_in_a_file_called_bus(tmp_path: Path) -> None:
    """``taskbus worker ./bus.py`` runs that file, and what it imports from bus and task is ours."""
    (tmp_path / "bus.py").write_text(
        "import bus, task\n"
        "class Mine(task.Worker):\n"
        "    type = 'mine'\n"
        "    def do_task(self, ctx):\n"
        "        return task.complete(bus.parse_url('null:').scheme)\n"
    )
    for isolation in ("thread", "process"):
        args = ("worker", "./bus.py", "--in", "-", "--isolation", isolation)
        result = taskbus(*args, cwd=tmp_path, stdin=b'{"type":"mine"}\n')

        assert (result.code, [task["msg"] for task in result.tasks]) == (0, ["null"]), result


def test_a_worker_that_never_lets_go_of_the_interpreter(tmp_path: Path) -> None:
    """In a process of its own it keeps its lease all the same, and is done once, by the one who began it."""
    url = f"sqlite:{tmp_path}/work.db?lease=200ms"
    (tmp_path / "idle").mkdir()
    odd, idle = Odd(tmp_path), Odd(tmp_path / "idle")
    with (
        odd.running("--bus", url, "--isolation", "process") as process,
        idle.running("--bus", url, "--isolation", "process") as other,
    ):
        publish(url, task_line("sum:60000000"))
        wait_until(lambda: pending(url).total == 0, 30)
        process.terminate()
        other.terminate()

    assert (odd.code, idle.code) == (0, 0)
    assert [task["msg"] for task in taken(url, "done")] == ["1"]
    assert (tmp_path / "begun-sum").exists() != (tmp_path / "idle" / "begun-sum").exists()


def test_nothing_outlives_a_killed_application(tmp_path: Path) -> None:
    """kill -9 of the application ends its worker processes, and what they started, however they hang."""
    odd = Odd(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(as_lines(task_line("hang")))
    with odd.running("--in", "in.jsonl", "--isolation", "process") as process:
        child = odd.begun("hang")
        grandchild = int((tmp_path / "grandchild").read_text())
        process.kill()

    assert child != process.pid
    wait_until(lambda: not is_running(child) and not is_running(grandchild))


def test_a_service_manager_that_signals_everybody(tmp_path: Path) -> None:
    """SIGTERM to a worker process as well is left to the application: the task ends within the kill time."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, task_line("wait:go"))
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--isolation", "process", "--status-port", "0") as process:
        os.kill(odd.begun("wait"), signal.SIGTERM)
        process.terminate()
        odd.stopping()
        (tmp_path / "go").touch()

    assert odd.code == 0
    assert [task["msg"] for task in taken(url, "done")] == ["1"]


@ISOLATIONS
def test_ctrl_c_at_a_terminal(tmp_path: Path, isolation: str) -> None:
    """Typed while a task runs, it lets the task end; the next command is on a line of its own; exit code 0."""
    odd = Odd(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(as_lines(task_line("wait:go"), task_line()))
    master, slave = os.openpty()

    def own_the_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    args = ("./odd.py", "--in", "in.jsonl", "--out", "done.jsonl", "--isolation", isolation, "--status-port", "0")
    process = subprocess.Popen(
        command_line("worker", *args),
        cwd=tmp_path,
        env=environment({"TERM": "xterm"}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=own_the_terminal,  # noqa: PLW1509  (there is no other way to have a controlling terminal)
    )
    os.close(slave)
    os.set_blocking(master, False)
    shown = b""

    def read() -> bytes:
        nonlocal shown
        with contextlib.suppress(OSError):  # nothing there yet, or its other end is closed
            shown += os.read(master, 65536)
        return shown

    try:
        wait_until(lambda: b"status page" in read() and (tmp_path / "begun-wait").exists())
        os.write(master, b"\x03")
        wait_until(lambda: b"^C" in read())
        (tmp_path / "go").touch()
        wait_until(lambda: (read(), process.poll())[1] is not None)
        read()
    finally:
        process.kill()
        process.wait()
        os.close(master)

    assert process.returncode == 0
    assert b"Traceback" not in shown
    assert shown.endswith(b"\n")
    assert odd.done[0]["msg"] == "1"
