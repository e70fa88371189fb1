"""Worker processes of one slot: what they do, how they end, and that none is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from bus import Delivery
from task import Outcome, Result, Task, complete, decode
from task.assignment import Assignment
from task.context import CancelReason, Context
from task.load import load_launch, target_of
from task.slots import ThreadSlots
from task.slots.frames import BrokenFrameError, Frames
from task.slots.process import ProcessExecutor
from tests.helpers import is_running, wait_until

#: What the worker file does when it is loaded by the worker process, and only there.
AT_LOAD = "TEST_AT_LOAD"
WORKERS = """
import asyncio, os, signal, subprocess, sys, time
from contextlib import suppress
from pathlib import Path
from task import Context, Outcome, Reject, RetryLater, Worker, complete, error

FOLDER = Path(__file__).parent
if os.environ.get("TEST_AT_LOAD") == "hang":
    FOLDER.joinpath("loading").write_text(str(os.getpid()))
    time.sleep(600)
if os.environ.get("TEST_AT_LOAD") == "slow":
    time.sleep(0.5)
if os.environ.get("TEST_AT_LOAD") == "wait":
    FOLDER.joinpath("loading").write_text(str(os.getpid()))
    while not FOLDER.joinpath("go").exists():
        time.sleep(0.005)
if os.environ.get("TEST_AT_LOAD") == "scribble":
    for fd in range(3, 64):
        with suppress(OSError):
            os.write(fd, b"loading\\n")
if os.environ.get("TEST_AT_LOAD") == "raise":
    raise RuntimeError("no licence")


def begun(pid):
    FOLDER.joinpath("new").write_text(str(pid))
    FOLDER.joinpath("new").rename(FOLDER / "begun")


class Sync(Worker):
    type = "t"

    def do_task(self, ctx: Context) -> Outcome:
        deed, _, argument = self.task.value.partition(":")
        ctx.meta["seen"] = "yes"
        if deed == "pid":
            return complete(str(os.getpid()), group=str(os.getpgid(0)))
        if deed == "told":
            return complete(f"{ctx.attempt} {ctx.remaining} {self.task.meta.get('k')}")
        if deed == "exit":
            os._exit(int(argument))
        if deed == "signal":
            os.kill(os.getpid(), int(argument))
        if deed == "silence":
            os.closerange(3, 256)
        if deed == "scribble":
            for fd in range(3, 64):
                with suppress(OSError):
                    os.write(fd, argument.encode())
        if deed == "hang":
            child = subprocess.Popen(["sleep", "600"])
            begun(child.pid)
            time.sleep(600)
        if deed == "wait":
            begun(os.getpid())
            ctx.wait(600)
            ctx.raise_if_cancelled()
        if deed == "grandchild":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            child = subprocess.Popen(["sleep", "600"])
            child.terminate()
            return complete(str(child.wait(20)))
        if deed == "big":
            return complete("x" * int(argument))
        if deed == "surrogate":
            return complete("\\udcff", name="\\udcff")
        if deed == "raise":
            raise {"reject": Reject("bad"), "later": RetryLater(3, "soon"), "exit": SystemExit(9)}[argument]
        return complete()


class Async(Worker):
    type = "t"

    async def do_task(self, ctx: Context) -> Outcome:
        if self.task.value == "wait":
            begun(os.getpid())
            await asyncio.sleep(600)
        await asyncio.sleep(0)
        return complete(str(os.getpid()))
"""


_BROKEN = (
    "the worker's process was killed, as its connection to the application cannot be read: no message begins with {}; "
    "does the worker write to file descriptors that it did not open?"
)


class Run:
    """One slot with the workers of a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        (folder / "workers_of_test.py").write_text(WORKERS)
        target = target_of(load_launch(f"{folder}/workers_of_test.py:{name}"))
        self.executor: ProcessExecutor
        self.ended: SimpleQueue[Assignment] = SimpleQueue()

        def make() -> ProcessExecutor:
            self.executor = ProcessExecutor(target, "info", "json")
            return self.executor

        self.slots = ThreadSlots(1, make, self.ended.put)
        self.slots.start()

    def submit(self, task: Task | str, attempt: int = 1, limit: float | None = None) -> Assignment:
        task = Task("t", task) if isinstance(task, str) else task
        made = Assignment(Delivery(b"", "1", attempt), task, Context(task, attempt, limit))
        self.slots.submit([made])
        return made

    def do(self, task: Task | str, **more: Any) -> Assignment:
        """One task, from start to end."""
        made = self.submit(task, **more)
        assert self.ended.get(timeout=20) is made
        return made

    def outcome(self, task: Task | str, **more: Any) -> Outcome:
        found = self.do(task, **more).outcome
        assert found is not None
        return found

    def pid(self) -> int:
        return int(self.outcome("pid").msg)

    def begun(self) -> int:
        path = self.folder / "begun"
        wait_until(path.exists)
        return int(path.read_text())


@contextmanager
def run(folder: Path, name: str = "Sync") -> Iterator[Run]:
    made = Run(folder, name)
    try:
        yield made
    finally:
        process = made.executor._process
        made.slots.stop()
        if process is not None:
            wait_until(lambda: not is_running(process.pid))


def test_it_works_in_another_process(tmp_path: Path) -> None:
    """One process does task after task, in a process group of its own."""
    with run(tmp_path) as r:
        first, second = r.outcome("pid"), r.outcome("pid")

    assert first == second
    assert first.msg != str(os.getpid())
    assert first.meta == {"seen": "yes", "group": first.msg}


def test_it_knows_its_task(tmp_path: Path) -> None:
    """Attempt, time left and meta arrive, also from a task in the Go dialect."""
    go = decode(b'{"type":"t","info":"told","meta":"k=w"}')
    with run(tmp_path) as r:
        attempt, remaining, meta = r.outcome("told", attempt=3, limit=60.0).msg.split()
        assert r.outcome(go).msg == "1 None w"

    assert (attempt, meta) == ("3", "None")
    assert 50 < float(remaining) <= 60


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("raise:reject", Outcome(Result.ERROR, "bad", {"seen": "yes"}, None, True)),
        ("raise:later", Outcome(Result.ERROR, "soon", {"seen": "yes"}, 3.0)),
        ("raise:exit", Outcome(Result.ERROR, "SystemExit: 9", {"seen": "yes"})),
        ("surrogate", Outcome(Result.COMPLETE, "?", {"seen": "yes", "name": "?"})),
        ("big:3000000", Outcome(Result.COMPLETE, "x" * 3_000_000, {"seen": "yes"})),
        ("x" * 3_000_000, complete("", seen="yes")),
    ],
    ids=lambda value: value[:16] if isinstance(value, str) else "",
)
def test_outcomes(tmp_path: Path, value: str, outcome: Outcome) -> None:
    """Every kind of outcome comes back as it is, however large."""
    with run(tmp_path) as r:
        assert r.outcome(value) == outcome


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("exit:7", "the worker's process ended with exit code 7"),
        ("exit:0", "the worker's process ended with exit code 0"),
        (f"signal:{signal.SIGKILL}", "the worker's process was killed by SIGKILL"),
        (f"signal:{signal.SIGABRT}", "the worker's process was killed by SIGABRT"),
        (f"signal:{signal.SIGRTMIN + 3}", f"the worker's process was killed by signal {signal.SIGRTMIN + 3}"),
        ("silence", "the worker's process was killed by SIGKILL"),
        ("scribble:progress 10 %", _BROKEN.format("b'progr'")),
        # A length, and what is no JSON object.
        ("scribble:\0\0\0\x05{nan}", _BROKEN.format("b'\\x00\\x00\\x00\\x05{nan}'")),
    ],
)
def test_crashes(tmp_path: Path, deed: str, reason: str) -> None:
    """The task has no outcome but a reason, and the next one is done by a new process."""
    with run(tmp_path) as r:
        before = r.pid()
        crashed = r.do(deed)
        after = r.pid()

    assert (crashed.outcome, crashed.crashed, crashed.reason) == (None, True, reason)
    assert crashed.ended >= crashed.began > 0
    assert before != after


def test_a_process_that_dies_between_two_tasks(tmp_path: Path) -> None:
    """That is not the next task's doing: a new process does it."""
    with run(tmp_path) as r:
        before = r.pid()
        os.kill(before, signal.SIGKILL)
        os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)

        assert r.pid() != before


def _loads_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> Assignment:
    """A task given to a process that cannot load the worker; when the cause has gone, the next one is done."""
    with run(tmp_path) as r:
        monkeypatch.setenv(AT_LOAD, how)
        failed = r.do("pid")
        monkeypatch.delenv(AT_LOAD)
        r.pid()
    return failed


def test_a_process_that_cannot_load_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told why; when the cause has gone, the next task is done."""
    failed = _loads_in_vain(tmp_path, monkeypatch, "raise")

    assert (failed.outcome, failed.crashed) == (None, True)
    assert "workers_of_test.py cannot be imported: RuntimeError: no licence at " in failed.reason


def test_a_process_that_breaks_its_connection_while_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told; when the cause has gone, the next task is done."""
    failed = _loads_in_vain(tmp_path, monkeypatch, "scribble")

    assert (failed.outcome, failed.crashed, failed.reason) == (None, True, _BROKEN.format("b'loadi'"))


def test_a_process_that_reads_what_is_not_meant_for_it(tmp_path: Path) -> None:
    """It ends, as it cannot tell where the next message begins, and the next one does the task."""
    with run(tmp_path) as r:
        before = r.pid()
        frames = r.executor._frames
        assert frames is not None
        frames._socket.sendall(b"?????")
        wait_until(lambda: not is_running(before))

        assert r.pid() != before


def test_a_process_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory or too many processes is told, and does not end the slot."""

    def refuse(*args: object, **more: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    with run(tmp_path) as r:
        with monkeypatch.context() as patch:
            patch.setattr("task.slots.process.subprocess.Popen", refuse)
            failed = r.do("pid")
        r.pid()

    assert failed.crashed
    assert failed.reason.startswith("the worker's process cannot be started: ")
    assert failed.began > 0


def test_loading_is_not_part_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that takes half a second to load has its time limit for its task."""
    with run(tmp_path) as r:
        monkeypatch.setenv(AT_LOAD, "slow")
        made = r.do("told", limit=10.0)

    assert made.outcome is not None
    assert float(made.outcome.msg.split()[1]) > 9.8
    assert made.ended - made.began < 0.4


@pytest.mark.parametrize("name", ["Sync", "Async"])
def test_while_it_loads_the_task_has_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It counts as running, with no beginning; told to stop meanwhile, it is told as soon as it could begin."""
    with run(tmp_path, name) as r:
        monkeypatch.setenv(AT_LOAD, "wait")
        made = r.submit("wait")
        wait_until((tmp_path / "loading").exists)
        assert (r.slots.running(), made.began) == ([made], 0.0)
        r.slots.cancel(made, CancelReason.SHUTDOWN)
        (tmp_path / "go").touch()
        assert r.ended.get(timeout=20) is made

    assert (made.outcome, made.reason, made.crashed) == (None, "interrupted by shutdown", False)


@pytest.mark.parametrize("name", ["Sync", "Async"])
@pytest.mark.parametrize("reason", list(CancelReason))
def test_told_to_stop(tmp_path: Path, name: str, reason: CancelReason) -> None:
    """The worker learns why, in its process; the process does the next task."""
    with run(tmp_path, name) as r:
        made = r.submit("wait")
        process = r.begun()
        r.slots.cancel(made, reason)
        assert r.ended.get(timeout=20) is made
        assert r.pid() == process

    if reason is CancelReason.SHUTDOWN:
        assert (made.outcome, made.crashed) == (None, False)
    else:
        assert made.outcome is not None
        assert made.outcome.msg.startswith("timed out after") is (reason is CancelReason.TIMEOUT)


def test_a_late_word_does_not_reach_the_next_task(tmp_path: Path) -> None:
    """What tells one task to stop, sent when that has just ended, is not for the one after it."""
    with run(tmp_path) as r:
        first = r.do("pid")
        second = r.submit("wait")
        r.begun()
        first.context._cancel(CancelReason.TIMEOUT)
        r.executor.cancel(first)
        assert r.slots.running() == [second]
        r.slots.cancel(second, CancelReason.LEASE_LOST)
        assert r.ended.get(timeout=20) is second

    assert second.outcome is not None
    assert second.outcome.msg == "Interrupted: interrupted: lease-lost"


def test_killed_with_all_it_started(tmp_path: Path) -> None:
    """A task given up is not reported; its process and what that started are gone; the next task is done."""
    with run(tmp_path) as r:
        first = r.pid()
        made = r.submit("hang")
        grandchild = r.begun()
        assert r.slots.kill(made) is True
        assert r.pid() != first
        wait_until(lambda: not is_running(first) and not is_running(grandchild))
        assert r.slots.abandoned() == 0

    assert r.ended.empty()


def test_killed_while_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that never finishes loading can be given up too."""
    with run(tmp_path) as r:
        monkeypatch.setenv(AT_LOAD, "hang")
        made = r.submit("pid")
        wait_until(lambda: (tmp_path / "loading").exists() and (tmp_path / "loading").read_text())
        loading = int((tmp_path / "loading").read_text())
        assert r.slots.kill(made) is True
        wait_until(lambda: not is_running(loading))
        monkeypatch.delenv(AT_LOAD)
        r.pid()


def test_it_does_not_outlive_its_application_while_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the other end of the connection has gone, a worker that hangs while it is loaded ends too."""
    with run(tmp_path) as r:
        monkeypatch.setenv(AT_LOAD, "hang")
        made = r.submit("pid")
        wait_until(lambda: (tmp_path / "loading").exists() and (tmp_path / "loading").read_text())
        frames = r.executor._frames
        assert frames is not None
        frames._socket.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not is_running(int((tmp_path / "loading").read_text())))
        assert r.ended.get(timeout=20) is made


def test_killed_while_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill that comes before there is a process takes effect as soon as there is one."""
    with run(tmp_path) as r:
        monkeypatch.setenv(AT_LOAD, "hang")
        start = subprocess.Popen

        def killed_meanwhile(*args: Any, **more: Any) -> Any:
            r.executor.kill()
            return start(*args, **more)

        with monkeypatch.context() as patch:
            patch.setattr("task.slots.process.subprocess.Popen", killed_meanwhile)
            made = r.do("pid")

    assert made.crashed


def test_signals_to_the_process(tmp_path: Path) -> None:
    """SIGTERM and SIGINT are for the application; a program that the worker starts reacts to them as ever."""
    with run(tmp_path) as r:
        assert r.outcome("grandchild").msg == str(-signal.SIGTERM)


def test_async_workers(tmp_path: Path) -> None:
    """They run on one loop of their process, task after task."""
    with run(tmp_path, "Async") as r:
        assert r.pid() == r.pid() != os.getpid()


def test_frames() -> None:
    """What one end sends the other receives; a torn one, and one after the end, is the end."""
    a, b = socket.socketpair()
    here, there = Frames(a), Frames(b)
    assert here.send({"n": 1, "text": "ü"})
    assert here.send({})
    assert there.receive() == {"n": 1, "text": "ü"}
    assert there.receive() == {}
    a.sendall((10).to_bytes(4, "big") + b'{"n"')
    here.close()

    assert there.receive() is None
    assert there.receive() is None
    assert there.send({"n": 2}) is False
    there.close()


@pytest.mark.parametrize("data", [b"hello world", b"\0\0\0\x02[]", b"\0\0\0\x01{", b"\0\0\0\0{}", b"\0\0\0\x03{1}"])
def test_what_is_no_frame_is_told(data: bytes) -> None:
    """It is an error that shows how it begins, also where the other side sends nothing more."""
    a, b = socket.socketpair()
    there = Frames(b)
    a.sendall(data)
    with pytest.raises(BrokenFrameError) as caught:
        there.receive()
    assert repr(data[:5])[:-1] in str(caught.value)
    a.close()
    there.close()
