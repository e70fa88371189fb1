"""What user code and its process can do to the application around it, on every bus."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bus
from task.dead import original
from tests.acceptance.support import Odd, publish, task_line
from tests.faults.special.stage import Stage, collect, need_faults, on
from tests.helpers import wait_until
from tests.taskbus_command import command_line, environment

pytestmark = pytest.mark.timeout(300)
#: Ways to run a worker whose tasks end their process.
_CONTAINED = {"processes": ("--processes", "2"), "process": ("--isolation", "process")}
_GOOD = 6
#: How the process of each of the three deeds ends.
_ENDS = [
    "the worker's process ended with exit code 7",
    "the worker's process was killed by SIGKILL",
    "the worker's process was killed by SIGSEGV",
]

#: A task's value is a number of seconds for which it does its worst. It tells the attempt.
_STUBBORN = """
import ctypes, os, time
from pathlib import Path
from task import Context, Outcome, Worker, complete


class Hold(Worker):
    \"\"\"As a C extension that keeps the interpreter to itself.\"\"\"
    type = "stubborn"

    def do_task(self, ctx: Context) -> Outcome:
        Path("begun").touch()
        ctypes.PyDLL(None).usleep(int(float(self.task.value) * 1e6))
        return complete(str(ctx.attempt))


class Spin(Worker):
    type = "stubborn"

    def do_task(self, ctx: Context) -> Outcome:
        Path("begun").touch()
        end = time.monotonic() + float(self.task.value)
        while time.monotonic() < end:
            pass
        return complete(str(ctx.attempt))


class Block(Worker):
    type = "stubborn"

    async def do_task(self, ctx: Context) -> Outcome:
        Path("begun").touch()
        time.sleep(float(self.task.value))
        return complete(str(ctx.attempt))
"""


def _odd(folder: Path) -> Odd:
    folder.mkdir()
    return Odd(folder)


@contextmanager
def _stubborn(folder: Path, what: str, *args: str) -> Iterator[Path]:
    """A worker that does its worst; its log."""
    folder.mkdir(exist_ok=True)
    (folder / "stubborn.py").write_text(_STUBBORN)
    log = folder / "log"
    with log.open("wb") as stderr:
        command = command_line("worker", f"./stubborn.py:{what}", "--log-format", "json", *args)
        process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=stderr)
    try:
        wait_until(lambda: '"event":"started"' in log.read_text(), 30)
        yield log
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("kind", _CONTAINED)
@on("sqlite")
def test_a_task_that_kills_its_process(scene: Stage, tmp_path: Path, kind: str) -> None:
    """Tasks that end their process, each in another way, are dead-lettered with their history; the rest flows."""
    if kind == "process":
        need_faults("tests/acceptance/test_bad_input.py has the like")
    deeds = ("quit", "kill", "segfault")
    good = [task_line("", f"good-{number}") for number in range(_GOOD)]
    publish(scene.url, *good[:3], *(task_line(deed, deed) for deed in deeds), *good[3:])
    odd = Odd(tmp_path)
    args = ("--bus", scene.url, "--max-attempts", "3", "--retry-delay", "10ms", "--log-format", "json")
    with odd.running(*args, *_CONTAINED[kind]) as process:
        letters = {letter["id"]: letter for letter in collect(scene.url, "odd.dead", len(deeds), limit=120)}
        done = collect(scene.url, "done", _GOOD)
        process.terminate()

    assert odd.code == 0
    assert {task["id"] for task in done} == {f"good-{number}" for number in range(_GOOD)}
    assert {id: original(letter) for id, letter in letters.items()} == {deed: task_line(deed, deed) for deed in deeds}
    if kind == "process":
        # The application outlives its process, and knows how that ended.
        assert [letters[deed]["reason"].partition(";")[0] for deed in deeds] == _ENDS
        assert {letter["attempts"] for letter in letters.values()} == {3}
        if bus.connect(scene.url).capabilities.history:
            assert [letters[deed]["history"] for deed in deeds] == [[end] * 2 for end in _ENDS]
    else:
        assert {letter["code"] for letter in letters.values()} == {"too-many-attempts"}
        # Kafka takes back what a process held that has been slow to tell it anything, once more than there were deaths.
        assert {letter["attempts"] for letter in letters.values()} <= ({4, 5} if scene.name == "kafka" else {4})
        # Nobody could tell how they ended. Where and when they were taken is known from the second attempt on, but not
        # of a delivery that reached a process only when that was ending.
        tries = {deed: letters[deed].get("tries", []) for deed in deeds}
        attempts = [[each["attempt"] for each in tries[deed]] for deed in deeds]
        assert all(each in ([2, 3], [2], [3], []) for each in attempts)
        assert attempts == [[2, 3]] * 3 or scene.name != "sqlite"
        for deed in deeds:
            assert len({each["pid"] for each in tries[deed]} - {process.pid}) == len(tries[deed])
            assert {each["host"] for each in tries[deed]} <= {platform.node()}
            moments = [each["taken"] for each in tries[deed]]
            assert sorted({*moments, letters[deed]["dead"]}) == [*moments, letters[deed]["dead"]]


@pytest.mark.slow
@on("sqlite")
def test_a_worker_that_stood_still_for_longer_than_its_lease(scene: Stage, tmp_path: Path) -> None:
    """Another does its task meanwhile. Awake again it settles nothing, and what it reports has the same id."""
    url = scene.url
    frozen, other = _odd(tmp_path / "frozen"), _odd(tmp_path / "other")
    with frozen.running("--bus", url, "--status-port", "0", "--log-format", "json") as first:
        publish(url, task_line("ignore:go", "it"))
        wait_until((frozen.folder / "begun-ignore").exists, 30)
        first.send_signal(signal.SIGSTOP)
        # When it goes on it has a result before anything can tell it that its lease is over.
        (frozen.folder / "go").touch()
        with other.running("--bus", url, "--log-format", "json") as second:
            wait_until((other.folder / "begun-ignore").exists, 60)
            first.send_signal(signal.SIGCONT)
            wait_until(lambda: '"event":"lease-lost"' in frozen.log, 60)
            (other.folder / "go").touch()
            publish(url, task_line("", "next"))
            done = collect(url, "done", 2, quiet=2 * scene.lease + 1)
            assert json.loads(frozen.ask("")[1])["lease_lost"] == 1
            second.terminate()
        first.terminate()

    assert (frozen.code, other.code) == (0, 0)
    reported = Counter(task["id"] for task in done)
    able = bus.connect(url).capabilities
    print(f"{scene.name}: {reported}")
    assert reported["next"] == 1
    assert 1 <= reported["it"] <= (1 if able.atomic_finish or able.dedupe else 2)
    # Of two reports the one that comes later is dropped where repeats are, and either may.
    assert "2" in {task["msg"] for task in done if task["id"] == "it"} or (able.dedupe and not able.atomic_finish)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "isolation"), [("Hold", "process"), ("Spin", "thread"), ("Block", "inline")], ids=["hold", "spin", "block"]
)
@on("sqlite")
def test_user_code_cannot_starve_a_lease(scene: Stage, tmp_path: Path, what: str, isolation: str) -> None:
    """A task that takes three leases, in the isolation it needs, is done once though another worker stands by."""
    if what == "Hold":
        need_faults("tests/acceptance/test_worker_processes.py has the like")
    args = ("--bus", scene.url, *(() if isolation == "inline" else ("--isolation", isolation)))
    with _stubborn(tmp_path / "one", what, *args) as one, _stubborn(tmp_path / "other", what, *args) as other:
        publish(scene.url, _stubborn_task(3 * scene.lease), topic="stubborn")
        done = collect(scene.url, "done", 1, quiet=scene.lease + 0.5)
        logs = one.read_text() + other.read_text()

    assert [task["msg"] for task in done] == ["1"]
    assert "lease-lost" not in logs
    assert (tmp_path / "one" / "begun").exists() != (tmp_path / "other" / "begun").exists()


@pytest.mark.slow
@on("sqlite", long=("file", "nats", "nsq", "pubsub"))
def test_a_thread_that_keeps_the_interpreter_is_told_of(scene: Stage, tmp_path: Path) -> None:
    """Without a process of its own it loses its lease, and the log says why and what to do."""
    with _stubborn(tmp_path, "Hold", "--bus", scene.url, "--isolation", "thread") as log:
        publish(scene.url, _stubborn_task(3 * scene.lease), topic="stubborn")
        collect(scene.url, "done", 1, quiet=scene.lease)
        wait_until(lambda: '"event":"stood-still"' in log.read_text())
        told = [json.loads(line) for line in log.read_text().splitlines() if '"event":"stood-still"' in line]

    assert told
    assert told[0]["seconds"] > scene.lease
    assert "--isolation process" in told[0]["message"]


def _stubborn_task(seconds: float) -> bytes:
    return json.dumps({"type": "stubborn", "task": str(seconds)}).encode()
