"""``--processes N`` with real processes: crashes, rolling restarts, signals, ends, and the page that tells of all."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bus
from bus import Message
from task import Task, encode
from tests.acceptance.support import Odd, pending, publish, taken, task_line
from tests.helpers import is_running, wait_until
from tests.taskbus_command import environment, taskbus

#: Writes each task's id to a file the moment it is done: an account outside the bus.
NOTED = """
import os, time
from task import Context, Outcome, Worker, complete, run

LEDGER = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Noted(Worker):
    type = "noted"

    def do_task(self, ctx: Context) -> Outcome:
        os.write(LEDGER, f"{self.task.id} {os.getpid()}\\n".encode())
        time.sleep(0.0002)
        return complete()


if __name__ == "__main__":
    run(Noted)
"""


def events(odd: Odd, name: str) -> list[dict[str, Any]]:
    """The log lines of one event so far."""
    lines = [
        json.loads(line) for line in odd.log.splitlines(keepends=True) if line.startswith("{") and line[-1] == "\n"
    ]
    return [line for line in lines if line.get("event") == name]


def page(odd: Odd) -> Any:
    """The statistics of the parent."""
    return json.loads(odd.ask("")[1])


def pids(odd: Odd) -> list[int]:
    """The process ids of the children that are there."""
    return [process["pid"] for process in page(odd)["processes"] if process["pid"]]


def all_ready(odd: Odd, count: int) -> None:
    """Wait until this many processes are ready."""
    wait_until(lambda: page(odd)["ready"] == count, 30)


@contextmanager
def script(folder: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """``python noted.py`` with these arguments, its stderr in the file ``log``; killed at the end of the block."""
    (folder / "noted.py").write_text(NOTED)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "noted.py", *args], cwd=folder, env=environment(), stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def send_noted(url: str, ids: list[str]) -> None:
    async def send() -> None:
        async with bus.connect(url) as connection, await connection.producer() as producer:
            for start in range(0, len(ids), 1000):
                tasks = [Task("noted", id=id) for id in ids[start : start + 1000]]
                await producer.publish_many([Message("noted", encode(task)) for task in tasks])

    asyncio.run(send())


@pytest.mark.slow
def test_drain_with_three_processes(tmp_path: Path) -> None:
    """20,000 tasks: each is done once and reported once, every process did some, and the parent ends with 0."""
    url = f"sqlite:{tmp_path}/work.db"
    ids = [f"{number:05d}" for number in range(20_000)]
    send_noted(url, ids)
    with script(tmp_path, "--bus", url, "--drain", "--processes", "3") as process:
        assert process.wait(100) == 0

    lines = [line.split() for line in (tmp_path / "ledger").read_text().splitlines()]
    assert sorted(id for id, _ in lines) == ids
    assert len({pid for _, pid in lines}) == 3
    assert sorted(task["id"] for task in taken(url, "done")) == ids
    assert pending(url, "noted", "noted").total == 0


@pytest.mark.slow
def test_a_rolling_restart_under_load(tmp_path: Path) -> None:
    """Nothing is lost or done twice, though every process is replaced twice, one after the other."""
    url = f"sqlite:{tmp_path}/work.db"
    odd = Odd(tmp_path)
    sent: list[str] = []

    def load() -> None:
        ids = [f"{len(sent) + number:06d}" for number in range(200)]
        sent.extend(ids)
        send_noted(url, ids)

    with script(tmp_path, "--bus", url, "--processes", "3", "--status-port", "0") as process:
        all_ready(odd, 3)
        first = set(pids(odd))
        for times in (1, 2):
            process.send_signal(signal.SIGHUP)
            while len(events(odd, "restarted")) < times:
                load()
        wait_until(lambda: pending(url, "noted", "noted").total == 0, 60)
        last = set(pids(odd))
        process.terminate()
        assert process.wait(30) == 0

    assert not first & last
    done = Counter(line.split()[0] for line in (tmp_path / "ledger").read_text().splitlines())
    assert done == dict.fromkeys(sent, 1)
    assert sorted(task["id"] for task in taken(url, "done")) == sent
    # What the log tells, in order: none is stopped before the one stopped before it is working again.
    restarts, away = 0, set[int]()
    for line in map(json.loads, odd.log.splitlines()):
        if line.get("event") == "stopped":
            away.add(line["process"])
        elif line.get("event") == "started":
            away.discard(line["process"])
        elif line.get("event") == "restarted":
            restarts += 1
        if restarts < 2:
            assert len(away) <= 1


def test_a_process_that_crashes_is_replaced(tmp_path: Path) -> None:
    """Its task is tried again, the others go on, and all of them are there again."""
    url = f"sqlite:{tmp_path}/work.db?lease=1s"
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0", "--max-attempts", "2") as process:
        all_ready(odd, 2)
        publish(url, task_line("kill", "deadly"), *(task_line("pid", f"{number}") for number in range(20)))
        wait_until(lambda: len(events(odd, "process-ended")) == 2, 30)
        wait_until(lambda: pending(url).total == 0, 30)
        all_ready(odd, 2)
        told = page(odd)
        process.terminate()

    assert odd.code == 0
    ended = events(odd, "process-ended")
    assert {line["message"] for line in ended} == {"a process was killed by SIGKILL and is started again"}
    assert {line["level"] for line in ended} == {"warning"}
    assert sum(each["restarts"] for each in told["processes"]) == 2
    assert sorted(int(task["id"]) for task in taken(url, "done")) == list(range(20))
    assert [letter["code"] for letter in taken(url, "odd.dead")] == ["too-many-attempts"]


def test_a_signal_lets_the_running_tasks_end(tmp_path: Path) -> None:
    """In every process; a service manager may signal the children, too. Nothing else is begun; exit code 0."""
    url = f"sqlite:{tmp_path}/work.db"
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0") as process:
        all_ready(odd, 2)
        publish(url, task_line("wait:go", "1"), task_line("ignore:go", "2"))
        odd.begun("wait")
        odd.begun("ignore")
        children = pids(odd)
        for pid in (process.pid, *children):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: page(odd)["ready"] == 0)
        assert odd.ask("readyz") == (503, "stopping\n")
        publish(url, task_line("", "3"))
        assert all(map(is_running, children))
        (tmp_path / "go").touch()

    assert odd.code == 0
    assert sorted(task["id"] for task in taken(url, "done")) == ["1", "2"]
    assert pending(url) == (1, 0, 0)
    assert not any(map(is_running, children))


def test_a_second_signal_hastens(tmp_path: Path) -> None:
    """The kill time is over: running tasks are handed back, and the exit code is the worst of all, 4."""
    url = f"sqlite:{tmp_path}/work.db"
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0", "--kill-time", "1h") as process:
        all_ready(odd, 2)
        publish(url, task_line("wait:go"))
        odd.begun("wait")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: odd.ask("readyz")[0] == 503)
        process.send_signal(signal.SIGINT)

    assert odd.code == 4
    assert pending(url) == (1, 0, 0)


def test_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Its children notice, let their tasks end, and leave nothing behind."""
    url = f"sqlite:{tmp_path}/work.db"
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0") as process:
        all_ready(odd, 2)
        publish(url, task_line("wait:go", "1"))
        odd.begun("wait")
        children = pids(odd)
        process.kill()
        process.wait()
        wait_until(lambda: len(events(odd, "orphaned")) == 2)
        (tmp_path / "go").touch()
        wait_until(lambda: not any(map(is_running, children)))

    assert [task["id"] for task in taken(url, "done")] == ["1"]
    assert pending(url).total == 0


def test_a_parent_that_is_killed_while_they_start(tmp_path: Path) -> None:
    """They end when they come to their worker, and do not take themselves for parents."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, task_line())
    odd = Odd(tmp_path)
    text = (tmp_path / "odd.py").read_text()
    waits = (
        "import os, time\nfrom pathlib import Path\n"
        "while '_TASKBUS_PROCESS' in os.environ and not Path('go').exists(): time.sleep(0.005)\n"
    )
    (tmp_path / "odd.py").write_text(waits + text)
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0") as process:
        wait_until(lambda: len(pids(odd)) == 2)
        children = pids(odd)
        process.kill()
        process.wait()
        (tmp_path / "go").touch()
        wait_until(lambda: not any(map(is_running, children)))

    assert len(events(odd, "supervising")) == 1
    assert pending(url) == (1, 0, 0)


def test_an_orphan_heeds_signals(tmp_path: Path) -> None:
    """Without a parent a child that is stopping is hastened as any worker is."""
    url = f"sqlite:{tmp_path}/work.db"
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0", "--kill-time", "1h") as process:
        all_ready(odd, 2)
        publish(url, task_line("wait:go", "1"))
        child = odd.begun("wait")
        process.kill()
        process.wait()
        wait_until(lambda: len(events(odd, "orphaned")) == 2)
        os.kill(child, signal.SIGTERM)
        wait_until(lambda: not is_running(child))

    assert pending(url) == (1, 0, 0)


def test_one_page_for_all(tmp_path: Path) -> None:
    """Sums, and each process by itself; what a process did that has died is kept."""
    url = f"sqlite:{tmp_path}/work.db"
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0", "--max-in-progress", "2") as process:
        all_ready(odd, 2)
        publish(url, b"bad", *[task_line()] * 40)
        wait_until(lambda: page(odd)["results"] == {"dead": 1, "complete": 40}, 20)
        victim = page(odd)["processes"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: page(odd)["processes"][0]["restarts"] == 1)
        all_ready(odd, 2)
        publish(url, *[task_line()] * 10, task_line("wait:go", "long"))
        odd.begun("wait")
        wait_until(lambda: page(odd)["results"] == {"dead": 1, "complete": 50} and page(odd)["held"] == 1, 20)
        told = page(odd)
        metrics = odd.ask("metrics")[1]
        assert odd.ask("healthz") == (200, "ok\n")
        assert odd.ask("readyz") == (200, "2 of 2 processes are ready\n")
        (tmp_path / "go").touch()
        process.terminate()

    assert odd.code == 0
    assert (told["type"], told["topic"], told["received"]) == ("odd", "odd", 52)
    (running,) = told["in_progress"]
    assert (running["id"], running["value"]) == ("long", "wait:go")
    assert running["process"] in (1, 2)
    assert [each["process"] for each in told["processes"]] == [1, 2]
    assert told["processes"][0]["last_end"] == "was killed by SIGKILL"
    assert sum(each["received"] for each in told["processes"]) == 52
    assert 'taskbus_tasks_total{result="complete",task_type="odd"} 50.0' in metrics
    assert 'taskbus_tasks_in_progress{task_type="odd"} 1.0' in metrics
    assert 'taskbus_ready{task_type="odd"} 1.0' in metrics
    assert 'taskbus_processes{task_type="odd"} 2.0' in metrics
    assert 'taskbus_processes_ready{task_type="odd"} 2.0' in metrics
    assert 'taskbus_process_restarts_total{process="1",task_type="odd"} 1.0' in metrics
    parts = [
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("taskbus_process_tasks_total") and 'result="complete"' in line
    ]
    assert len(parts) == 2
    assert sum(parts) == 50


def test_one_that_is_busy_and_one_that_is_away(tmp_path: Path) -> None:
    """The parent is ready while one process is, and says what is with the other."""
    odd = Odd(tmp_path)
    text = (tmp_path / "odd.py").read_text()
    waits = "import time\nfrom pathlib import Path\nwhile Path('closed').exists(): time.sleep(0.005)\n"
    (tmp_path / "odd.py").write_text(waits + text)
    with odd.running("--bus", "sqlite:work.db", "--processes", "2", "--status-port", "0") as process:
        all_ready(odd, 2)
        (tmp_path / "closed").touch()
        os.kill(pids(odd)[1], signal.SIGKILL)
        wait_until(lambda: odd.ask("readyz") == (200, "1 of 2 processes are ready; 2: starting\n"))
        (tmp_path / "closed").unlink()
        all_ready(odd, 2)
        process.terminate()

    assert odd.code == 0


def test_a_stop_while_they_start(tmp_path: Path) -> None:
    """A process that has not come to its worker is not waited for."""
    odd = Odd(tmp_path)
    os.mkfifo(tmp_path / "gate")
    text = (tmp_path / "odd.py").read_text()
    waits = "import os, sys\nfrom pathlib import Path\nif '_TASKBUS_PROCESS' in os.environ: Path('gate').read_text()\n"
    (tmp_path / "odd.py").write_text(waits + text)
    with odd.running("--bus", "sqlite:work.db", "--processes", "2", "--status-port", "0") as process:
        wait_until(lambda: len(pids(odd)) == 2)
        children = pids(odd)
        process.terminate()
        assert process.wait(8) == 0  # sooner than the kill time

    assert not any(map(is_running, children))


def test_a_lifetime_is_that_of_a_process(tmp_path: Path) -> None:
    """Each does so many tasks and is replaced, without a pause and without end."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, *(task_line("pid", f"{number}") for number in range(23)))
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--processes", "2", "--lifetime", "3") as process:
        wait_until(lambda: pending(url).total == 0, 60)
        process.terminate()

    assert odd.code == 0
    each = Counter(task["msg"] for task in taken(url, "done"))
    assert sum(each.values()) == 23
    assert max(each.values()) <= 3
    assert len(each) >= 8


def test_a_lifetime_and_a_drain(tmp_path: Path) -> None:
    """Processes are replaced until there is nothing left, and then all end; exit code 0."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, *(task_line("pid", f"{number}") for number in range(14)))
    odd = Odd(tmp_path).run("--bus", url, "--processes", "2", "--lifetime", "3", "--drain", limit=60)

    assert odd.code == 0
    assert len(taken(url, "done")) == 14


def test_a_drain_outlives_a_crash(tmp_path: Path) -> None:
    """A process that dies while draining is replaced, and what it held is done when its lease has ended."""
    url = f"sqlite:{tmp_path}/work.db?lease=1s"
    publish(url, task_line("kill", "deadly"), *(task_line("pid", f"{number}") for number in range(20)))
    odd = Odd(tmp_path).run("--bus", url, "--processes", "2", "--drain", "--max-attempts", "2", limit=60)

    assert odd.code == 0
    assert len(taken(url, "done")) == 20
    assert [letter["code"] for letter in taken(url, "odd.dead")] == ["too-many-attempts"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--in", "in.jsonl"], "processes cannot share the tasks of lines:in.jsonl"),
        (["--in", "-"], "processes cannot share the tasks of stdio:"),
        (["--bus", "memory:here"], "processes cannot share the tasks of memory:here"),
        (["--out", "-"], "the lines of several processes would mix in what --out - names"),
        (["--out", "/dev/stdout"], "the lines of several processes would mix in what --out /dev/stdout names"),
        (["--processes", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_what_several_processes_cannot_do(tmp_path: Path, args: list[str], told: str) -> None:
    """Is told before any is started, with exit code 2."""
    odd = Odd(tmp_path).run("--processes", "2", *args)

    assert odd.code == 2
    assert told in odd.err
    assert "event" not in odd.err
    assert not (tmp_path / "taskbus.db").exists()


def test_a_file_as_output(tmp_path: Path) -> None:
    """Each process appends whole lines."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, *(task_line("pid", f"{number:04d}") for number in range(1000)))
    odd = Odd(tmp_path).run("--bus", url, "--processes", "2", "--drain", "--out", "done.jsonl")

    assert odd.code == 0
    assert sorted(task["id"] for task in odd.done) == [f"{number:04d}" for number in range(1000)]


def test_what_no_process_can_do(tmp_path: Path) -> None:
    """A worker that cannot run as asked stops the parent with its exit code; nobody tries again and again."""
    (tmp_path / "lame.py").write_text(
        "from task import Worker\nclass Lame(Worker):\n    type = 'lame'\n    async def do_task(self, ctx): ...\n"
    )
    args = ("--bus", "sqlite:work.db", "--processes", "3", "--isolation", "thread", "--log-format", "json")
    result = taskbus("worker", "./lame.py", *args, cwd=tmp_path)

    assert result.code == 2
    assert "an async do_task runs inline or in a process, not in a thread" in result.err
    assert "started again" not in result.err


def test_a_bus_that_cannot_be_used_at_the_start(tmp_path: Path) -> None:
    """Ends the parent as it would end a single worker: with 3."""
    odd = Odd(tmp_path).run("--bus", "sqlite:/proc/work.db", "--processes", "2")
    alone = Odd(tmp_path).run("--bus", "sqlite:/proc/work.db")

    assert (odd.code, alone.code) == (3, 3)
    assert "started again" not in odd.err


def test_a_program_that_cannot_be_started_again(tmp_path: Path) -> None:
    """One that was read from standard input is refused."""
    done = subprocess.run(
        [sys.executable, "-", "--bus", "sqlite:work.db", "--processes", "2"],
        cwd=tmp_path,
        input=NOTED.encode(),
        env=environment(),
        capture_output=True,
        timeout=30,
    )

    assert done.returncode == 2
    assert b"--processes starts this program again, so it must be a file or module" in done.stderr


def test_a_program_that_does_something_else_the_next_time(tmp_path: Path) -> None:
    """It does not come to its worker: that is told, once, and not tried again and again."""
    (tmp_path / "once.py").write_text(
        "from pathlib import Path\nif Path('been').exists():\n    raise SystemExit\nPath('been').touch()\n" + NOTED
    )
    done = subprocess.run(
        [sys.executable, "once.py", "--bus", "sqlite:work.db", "--processes", "2"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=30,
    )

    assert done.returncode == 1
    assert b"started again, this program does not come to its worker" in done.stderr


@pytest.mark.parametrize(
    "how",
    [
        ["-m", "pack.noted"],
        ["-c", "import pack.noted as n; n.run(n.Noted)"],
        ["-P", "-m", "task", "worker", "pack.noted:Noted"],
    ],
    ids=["module", "command", "by-name"],
)
def test_every_way_to_start_a_program(tmp_path: Path, how: list[str]) -> None:
    """The children are the same program, with the same options of the interpreter and the same arguments."""
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "noted.py").write_text(NOTED)
    url = f"sqlite:{tmp_path}/work.db"
    send_noted(url, ["1", "2", "3"])
    done = subprocess.run(
        [sys.executable, "-X", "utf8", *how, "--bus", url, "--drain", "--processes", "2", "--log-format", "json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=30,
    )

    assert done.returncode == 0, done.stderr
    assert sorted(task["id"] for task in taken(url, "done")) == ["1", "2", "3"]
    assert done.stderr.count(b'"event":"process-finished"') == 2


def test_built_in_workers_and_their_own_arguments(tmp_path: Path) -> None:
    """The shell worker passes its program on; settings may come from the environment."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, task_line("x", type="shell"), topic="shell")
    env = {"TASKBUS_PROCESSES": "2", "TASKBUS_BUS": url, "TASKBUS_STATUS_PORT": "0"}
    result = taskbus(
        "worker", "shell", "--drain", "--", "sh", "-c", 'echo "[$_TASKBUS_PROCESS]" {value}', cwd=tmp_path, env=env
    )

    assert result.code == 0, result
    assert [task["msg"] for task in taken(url, "done")] == ["[] x"]
    assert result.err.count('"event":"status-port"') == 1


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_log_lines_say_which_process(tmp_path: Path, isolation: str) -> None:
    """Those of the user's code, too, whichever process of a process it runs in."""
    (tmp_path / "say.py").write_text(
        "from task import Worker, complete\n"
        "class Say(Worker):\n"
        "    type = 'say'\n"
        "    def do_task(self, ctx):\n"
        "        ctx.log.info('saying it')\n"
        "        return complete()\n"
    )
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, task_line(type="say"), topic="say")
    args = ("--bus", url, "--drain", "--processes", "2", "--isolation", isolation, "--log-format", "json")
    result = taskbus("worker", "./say.py", *args, cwd=tmp_path)

    lines = [json.loads(line) for line in result.err.splitlines()]
    assert {line["process"] for line in lines if line["message"] == "working"} == {1, 2}
    assert [line["process"] in (1, 2) for line in lines if line["message"] == "saying it"] == [True]
    assert all("process" not in line for line in lines if line.get("event") in ("supervising", "supervised"))


def test_a_restart_with_a_broken_program(tmp_path: Path) -> None:
    """Stops at the first process: the others go on with what they have. Once mended, all is well again."""
    url = f"sqlite:{tmp_path}/work.db"
    odd = Odd(tmp_path)
    good = (tmp_path / "odd.py").read_text()
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0") as process:
        all_ready(odd, 2)
        before = pids(odd)
        (tmp_path / "odd.py").write_text("this is no Python")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: events(odd, "restart-failed"))
        publish(url, task_line("pid"))
        assert [task["msg"] for task in _soon(url)] == [str(before[1])]
        (tmp_path / "odd.py").write_text(good)
        all_ready(odd, 2)
        assert before[1] in pids(odd)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: events(odd, "restarted"), 30)
        assert not set(before) & set(pids(odd))
        process.terminate()

    assert odd.code == 0


def _soon(url: str) -> list[dict[str, Any]]:
    """The done tasks, as soon as there is one."""
    wait_until(lambda: pending(url, "done", "test").ready)
    return taken(url, "done")


def test_a_child_that_is_told_to_stop_by_somebody_else(tmp_path: Path) -> None:
    """It stops gracefully and is replaced at once."""
    odd = Odd(tmp_path)
    with odd.running("--bus", "sqlite:work.db", "--processes", "2", "--status-port", "0") as process:
        all_ready(odd, 2)
        child = pids(odd)[0]
        os.kill(child, signal.SIGTERM)
        wait_until(lambda: not is_running(child))
        all_ready(odd, 2)
        process.terminate()

    assert odd.code == 0
    (ended,) = events(odd, "process-ended")
    assert (ended["pid"], ended["message"]) == (child, "a process ended with exit code 0 and is replaced")


def test_the_terminal_is_closed(tmp_path: Path) -> None:
    """SIGHUP then means the end, as for every program, and not a restart nobody would see."""
    odd = Odd(tmp_path)
    master, slave = os.openpty()

    def own_the_terminal() -> None:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    from tests.taskbus_command import command_line

    with (tmp_path / "log").open("ab") as log:
        process = subprocess.Popen(
            command_line("worker", "./odd.py", "--bus", "sqlite:work.db", "--processes", "2", "--status-port", "0"),
            cwd=tmp_path,
            env=environment(),
            stdin=slave,
            stdout=slave,
            stderr=log,
            pass_fds=[slave],
            start_new_session=True,
            preexec_fn=own_the_terminal,  # noqa: PLW1509  (there is no other way to have a controlling terminal)
        )
    os.close(slave)
    try:
        all_ready(odd, 2)
        children = pids(odd)
        os.close(master)
        assert process.wait(30) == 0
        assert not any(map(is_running, children))
    finally:
        process.kill()
        process.wait()
    assert events(odd, "restarting") == []


def test_a_parent_that_is_stopped_for_a_while(tmp_path: Path) -> None:
    """Its children work on, and wait for nobody to read what they report."""
    url = f"sqlite:{tmp_path}/work.db"
    odd = Odd(tmp_path)
    with odd.running("--bus", url, "--processes", "2", "--status-port", "0") as process:
        all_ready(odd, 2)
        process.send_signal(signal.SIGSTOP)
        publish(url, *[task_line()] * 500)
        wait_until(lambda: pending(url).total == 0, 20)
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: page(odd)["results"] == {"complete": 500}, 10)
        process.terminate()

    assert odd.code == 0


def test_it_ends_in_time(tmp_path: Path) -> None:
    """A parent with nothing to do ends as quickly as a single worker."""
    odd = Odd(tmp_path)
    with odd.running("--bus", "sqlite:work.db", "--processes", "2", "--status-port", "0") as process:
        all_ready(odd, 2)
        began = time.monotonic()
        process.terminate()
        assert process.wait(5) == 0
    assert time.monotonic() - began < 5
