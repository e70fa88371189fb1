"""The parent of several processes, with programs that are no workers; and what a child makes of its place."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from task import Context, Outcome, Worker, complete
from task.exits import Exit
from task.options import WorkerOptions
from task.report import Report
from task.retry import Backoff
from task.stats import Stats
from task.supervisor import child as child_module
from task.supervisor import place as place_module
from task.supervisor import supervisor as supervisor_module
from task.supervisor.child import Child, how_it_ended
from task.supervisor.overview import Overview
from task.supervisor.place import VARIABLE, own_place, told_by
from task.supervisor.supervisor import Supervisor
from task.worker_app import WorkerApp
from tests.helpers import await_until, is_running

DOCS = Path(__file__).parents[2] / "docs"
#: What a child reports, in a program that is none of ours.
SPEAK = """
import json, os, signal, socket, sys, time
fd, number, parent = map(int, os.environ["_TASKBUS_PROCESS"].split(":"))
parent = socket.socket(fileno=fd)
def tell(ready, **more):
    names = "received seconds runs lease_lost bus_errors interrupted stalls guard_waits guard_requeues guard_repeats"
    stats = dict.fromkeys([*names.split(), "guard_lost"], 1)
    report = {"ready": [ready, "ok"], "stats": {"results": {"complete": 1}, **stats}, **more}
    parent.sendall(json.dumps(report).encode() + b"\\n")
"""


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


class Delays(Backoff):
    """Remembers for which failures it was asked, and asks for no patience."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "asked", [])

    __slots__ = ("asked",)
    asked: list[int]

    def delay(self, attempt: int) -> float:
        self.asked.append(attempt)
        return 0.0


async def stopped(supervisor: Supervisor, until: Any) -> Exit:
    """Run it until ``until()`` holds, then stop it."""
    work = asyncio.create_task(supervisor.run())
    await await_until(until, 20)
    supervisor.stop()
    async with asyncio.timeout(20):
        return await work


def test_failures_in_a_row_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """So that each pause is longer than the one before; each is in the log."""

    async def scenario() -> None:
        delays = Delays()
        supervisor = Supervisor(program("raise SystemExit(7)"), 1, 1.0, backoff=delays)
        await stopped(supervisor, lambda: len(delays.asked) >= 4)
        assert delays.asked[:4] == [1, 2, 3, 4]
        assert supervisor.slots[0].restarts >= 4

    asyncio.run(scenario())
    assert caplog.text.count("a process ended with exit code 7 and is started again") >= 4


def test_a_process_that_lived_starts_the_count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash once a day is no crash loop."""
    monkeypatch.setattr(supervisor_module, "_STEADY", 0.0)

    async def scenario() -> None:
        delays = Delays()
        await stopped(
            Supervisor(program("raise SystemExit(7)"), 1, 1.0, backoff=delays), lambda: len(delays.asked) >= 3
        )
        assert set(delays.asked) == {1}

    asyncio.run(scenario())


def test_a_pause_before_a_restart_ends_with_a_stop() -> None:
    """However long it was to be."""

    async def scenario() -> None:
        supervisor = Supervisor(program("raise SystemExit(7)"), 2, 1.0, backoff=Backoff("fixed", 3600.0, 3600.0))
        await stopped(supervisor, lambda: all(slot.restarts for slot in supervisor.slots))
        assert [slot.state for slot in supervisor.slots] == ["waiting to be restarted"] * 2

    asyncio.run(scenario())


def test_a_restart_does_not_wait_for_the_pause() -> None:
    """Whoever asks for a restart has perhaps mended what made it fail."""

    async def scenario() -> None:
        supervisor = Supervisor(program("raise SystemExit(7)"), 1, 1.0, backoff=Backoff("fixed", 3600.0, 3600.0))
        work = asyncio.create_task(supervisor.run())
        (slot,) = supervisor.slots
        await await_until(lambda: slot.restarts == 1 and slot.child is None)
        supervisor.roll()
        await await_until(lambda: slot.restarts == 2)
        supervisor.stop()
        await work

    asyncio.run(scenario())


def test_a_program_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """Is an error in the log, and tried again: it may be being replaced."""

    async def scenario() -> None:
        delays = Delays()
        await stopped(Supervisor(["/no/such/program"], 1, 1.0, backoff=delays), lambda: len(delays.asked) >= 2)

    asyncio.run(scenario())
    assert "a process could not be started ([Errno 2]" in caplog.text


def test_a_process_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the kill time and a margin; what it was doing comes back to the bus, so the code is 4."""
    monkeypatch.setattr(supervisor_module, "_MARGIN", 0.05)
    text = SPEAK + "tell(True)\nwhile True: time.sleep(600)"

    async def scenario() -> None:
        supervisor = Supervisor(program(text), 2, 0.05)
        code = await stopped(supervisor, lambda: supervisor.ready == 2)
        assert code is Exit.INTERRUPTED
        assert [slot.last for slot in supervisor.slots] == ["was killed by SIGKILL"] * 2

    asyncio.run(scenario())


def test_impatience_does_not_put_off_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signal after signal, it is killed when it would have been after the second."""
    monkeypatch.setattr(supervisor_module, "_MARGIN", 0.3)
    text = SPEAK + "tell(True)\nwhile True: time.sleep(600)"

    async def scenario() -> None:
        supervisor = Supervisor(program(text), 1, 3600.0)
        work = asyncio.create_task(supervisor.run())
        await await_until(lambda: supervisor.ready == 1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not work.done():
            supervisor.stop()
            await asyncio.wait([work], timeout=0.02)
            assert loop.time() - began < 10
        assert work.result() is Exit.INTERRUPTED

    asyncio.run(scenario())


def test_a_process_that_falls_silent_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it does not report."""
    text = SPEAK + "tell(True)\nparent.recv(5)"

    async def scenario() -> None:
        supervisor = Supervisor(program(text), 1, 5.0)
        (slot,) = supervisor.slots
        work = asyncio.create_task(supervisor.run())
        await await_until(lambda: slot.ready)
        monkeypatch.setattr(child_module, "_SILENT", 0.0)
        assert (slot.ready, slot.state) == (False, "silent")
        monkeypatch.setattr(child_module, "_SILENT", 10.0)
        assert (slot.ready, slot.state) == (True, "ready")
        supervisor.stop()
        await work

    asyncio.run(scenario())


def test_a_rolling_restart_kills_what_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on."""
    monkeypatch.setattr(supervisor_module, "_MARGIN", 0.05)
    text = SPEAK + "tell(True)\nwhile True: time.sleep(600)"

    async def scenario() -> None:
        supervisor = Supervisor(program(text), 2, 0.0)
        work = asyncio.create_task(supervisor.run())
        await await_until(lambda: supervisor.ready == 2)
        before = [slot.child for slot in supervisor.slots]
        supervisor.roll()
        await await_until(lambda: all(slot.restarts == 1 for slot in supervisor.slots) and supervisor.ready == 2)
        assert not {*before} & {slot.child for slot in supervisor.slots}
        supervisor.stop()
        await work

    asyncio.run(scenario())


def test_a_second_request_to_restart_is_not_forgotten() -> None:
    """What was started for the first one may be older than the second."""
    text = SPEAK + "tell(True)\nassert parent.recv(5) == b'stop\\n'\ntell(False, ended='stopped')"

    async def scenario() -> None:
        supervisor = Supervisor(program(text), 2, 5.0)
        work = asyncio.create_task(supervisor.run())
        await await_until(lambda: supervisor.ready == 2)
        supervisor.roll()
        await await_until(lambda: supervisor.slots[0].restarts)
        supervisor.roll()
        supervisor.roll()
        await await_until(lambda: [slot.restarts for slot in supervisor.slots] == [2, 2] and supervisor.ready == 2)
        supervisor.stop()
        supervisor.roll()
        assert await work is Exit.OK

    asyncio.run(scenario())


def test_what_ended_processes_counted_is_kept() -> None:
    """And added to what their successors count."""
    text = SPEAK + "tell(True)\ntell(False, ended='lifetime')"

    async def scenario() -> None:
        supervisor = Supervisor(program(text), 1, 5.0)
        (slot,) = supervisor.slots
        await stopped(supervisor, lambda: slot.restarts >= 3)
        stats = slot.at[0]
        assert stats.received == stats.results["complete"] >= 3

    asyncio.run(scenario())


def test_finished_processes_are_not_restarted() -> None:
    """Neither by themselves nor on request, which the others are."""
    text = SPEAK + (
        "tell(True)\nif number == 2: parent.recv(5)\ntell(False, ended='input' if number == 1 else 'stopped')\n"
    )

    async def scenario() -> None:
        supervisor = Supervisor(program(text), 2, 5.0)
        work = asyncio.create_task(supervisor.run())
        first, second = supervisor.slots
        await await_until(lambda: first.finished and second.ready)
        supervisor.roll()
        await await_until(lambda: second.restarts == 1 and second.ready)
        assert (first.state, first.restarts) == ("finished", 0)
        supervisor.stop()
        assert await work is Exit.OK

    asyncio.run(scenario())


def test_reports_that_are_too_long_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is read."""
    monkeypatch.setattr(child_module, "_LONGEST", 4096)
    text = SPEAK + "tell(False, rubbish='x' * 100000)\ntell(True)\nparent.recv(5)"

    async def scenario() -> None:
        supervisor = Supervisor(program(text), 1, 5.0)
        await stopped(supervisor, lambda: supervisor.ready == 1)

    asyncio.run(scenario())


def test_what_a_process_leaves_running_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it may have inherited the connection."""
    monkeypatch.setattr(child_module, "_LAST", 0.05)
    text = SPEAK + (
        "import subprocess\n"
        "left = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "tell(True, left=left.pid)\nos._exit(7)"
    )

    async def scenario() -> int:
        child = Child(1, lambda: None)
        async with asyncio.timeout(20):
            assert await child.run(program(text)) == 7
        assert child.report is not None
        return int(child.report["left"])

    left = asyncio.run(scenario())
    assert is_running(left)
    os.kill(left, 9)


def test_a_cancelled_parent_leaves_no_child() -> None:
    """Whatever ends it."""

    async def scenario() -> int:
        child = Child(1, lambda: None)
        work = asyncio.create_task(child.run(program(SPEAK + "tell(True)\ntime.sleep(600)")))
        await await_until(lambda: child.ready)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert child.pid is not None
        return child.pid

    pid = asyncio.run(scenario())
    assert not is_running(pid)


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "ended with exit code 0"), (-9, "was killed by SIGKILL"), (-35, "was killed by signal 35")],
)
def test_how_it_ended(code: int, text: str) -> None:
    """In words."""
    assert how_it_ended(code) == text


@pytest.fixture
def _no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_module, "_own", None)
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.usefixtures("_no_place")
def test_a_place_is_given_to_one_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its parent; what it starts does not find the variable, and is not given the socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setenv(VARIABLE, f"{theirs.fileno()}:3:{os.getppid()}")
        theirs.set_inheritable(True)
        place = own_place()
        assert place is not None
        assert place.number == 3
        assert VARIABLE not in os.environ
        assert not theirs.get_inheritable()
        assert own_place() is place


@pytest.mark.usefixtures("_no_place")
def test_a_place_that_is_somebody_elses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable alone, another process's parent, or a descriptor that is no socket make no child."""
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "file").open("w") as file:
        for given in (told_by(theirs, 1)[VARIABLE], f"{file.fileno()}:1:{os.getppid()}", f"999999:1:{os.getppid()}"):
            monkeypatch.setenv(VARIABLE, given)
            assert own_place() is None
            assert VARIABLE not in os.environ
        # Who gave it has died: then it is a child that is to end.
        monkeypatch.setenv(VARIABLE, told_by(theirs, 1)[VARIABLE])
        ours.close()
        assert own_place() is not None


class Hello(Worker):
    type = "hello"

    def do_task(self, ctx: Context) -> Outcome:
        return complete()


def test_the_metrics_of_several_processes_are_documented() -> None:
    """Those of one worker, the same for each process, and those in the table of docs/observing.md; no others."""
    app = WorkerApp(Hello, WorkerOptions())
    overview = Overview(app, Supervisor(program(""), 2, 1.0))

    found: dict[str, tuple[str, set[str]]] = {
        metric.name: (metric.kind, set(metric.labels) - {"task_type"}) for metric in overview.metrics()
    }

    of_one = {metric.name: (metric.kind, set(metric.labels) - {"task_type"}) for metric in Report(app).metrics()}
    for name, (kind, labels) in of_one.items():
        assert found.pop(name) == (kind, labels)
        assert found.pop(name.replace("taskbus_", "taskbus_process_", 1)) == (kind, labels | {"process"})
    text = (DOCS / "observing.md").read_text().partition("\n## Several processes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    assert {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == found


def test_nothing_has_started_yet() -> None:
    """The page says so, and has everything a page of one worker has."""
    app = WorkerApp(Hello, WorkerOptions())
    overview = Overview(app, Supervisor(program(""), 2, 1.0))

    assert overview.ready() == (False, "0 of 2 processes are ready; 1: starting; 2: starting")
    assert overview.healthy() == (True, "ok")
    assert set(Report(app).statistics()) - set(overview.statistics()) == {"bus"}
    assert set(overview.statistics()) - set(Report(app).statistics()) == {"ready", "processes"}


def test_counters_add_up() -> None:
    """Every number of one and the other, also those of results only one has."""
    one, other = Stats(), Stats()
    one.received, one.seconds = 3, 0.5
    one.results.update(complete=2, error=1)
    other.received, other.stalls = 4, 1
    other.results.update(complete=4, dead=1)

    total = one.plus(other.snapshot())

    assert (total.received, total.seconds, total.stalls) == (7, 0.5, 1)
    assert total.results == {"complete": 6, "error": 1, "dead": 1}
    assert (one.received, other.received) == (3, 4)
