"""The clock of the machine is set, by hours, under everything that waits for a time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from task.codec import encode
from task.task import Task
from tests.acceptance.support import publish
from tests.faults.special.clock import MachineClock
from tests.faults.special.stage import Stage, collect, on
from tests.helpers import wait_until
from tests.taskbus_command import command_line, environment, taskbus

pytestmark = pytest.mark.timeout(300)
#: Not kafka: its client waits until moments of the machine's clock, in the kernel, which no preload can show another.
_LONG = ("nats", "nsq", "pubsub")
_HOURS = 5 * 3600.0

#: A task's value is ``SECONDS`` it takes, or ``again``: the first attempt is to be repeated in a second.
_TIMED = """
import time
from pathlib import Path
from task import Context, Outcome, Worker, complete, retry_later


class Timed(Worker):
    type = "timed"

    def do_task(self, ctx: Context) -> Outcome:
        Path(f"begun-{self.task.id}-{ctx.attempt}").touch()
        if self.task.value == "again":
            return retry_later(1.0, "once more") if ctx.attempt == 1 else complete(str(ctx.attempt))
        end = time.monotonic() + float(self.task.value)
        while time.monotonic() < end and not ctx.wait(0.02):
            pass
        return complete(str(ctx.attempt))
"""


class _Worker:
    """One that sees the clock of the test."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


Start = Callable[[str], _Worker]


@pytest.fixture
def clock(tmp_path: Path) -> MachineClock:
    """What the workers of a test take for the clock of the machine."""
    return MachineClock(tmp_path)


@pytest.fixture
def start(scene: Stage, clock: MachineClock, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker in a folder of this name."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(name: str) -> _Worker:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "timed.py").write_text(_TIMED)
        command = command_line("worker", "./timed.py", "--bus", scene.url, "--log-format", "json")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment(clock.environment), stderr=log)
        running.append(process)
        worker = _Worker(folder, process)
        wait_until(lambda: '"event":"started"' in worker.log, 30)
        return worker

    yield begin
    for process in running:
        process.kill()
        process.wait()


def _timed(value: str, id: str) -> bytes:
    return encode(Task("timed", value, id=id))


@pytest.mark.slow
@pytest.mark.parametrize("hours", [_HOURS, -_HOURS], ids=["forward", "back"])
@on("sqlite", "file", long=_LONG)
def test_a_lease_outlives_a_clock_that_is_set(
    scene: Stage, clock: MachineClock, start: Start, tmp_path: Path, hours: float
) -> None:
    """A task that runs meanwhile is done once; one whose worker then dies is begun again when its lease is over."""
    first = start("first")
    publish(scene.url, _timed(str(4 * scene.lease), "long"), topic="timed")
    wait_until((first.folder / "begun-long-1").exists, 30)
    clock.set(hours)
    second = start("second")
    assert [task["msg"] for task in collect(scene.url, "done", 1, quiet=scene.lease)] == ["1"]
    assert "lease-lost" not in first.log

    second.process.kill()
    publish(scene.url, _timed("3600", "held"), topic="timed")
    # A server may first give it to the one just killed.
    wait_until(lambda: list(first.folder.glob("begun-held-*")), 30)
    clock.set(0)
    first.process.kill()
    third = start("third")
    wait_until(lambda: list(third.folder.glob("begun-held-*")), 30)


@pytest.mark.slow
@on("sqlite", "file", long=_LONG)
def test_a_retry_comes_in_time(scene: Stage, clock: MachineClock, start: Start) -> None:
    """What was to be tried again in a second is, though the clock is set back by hours meanwhile, and forward."""
    clock.set(_HOURS)
    worker = start("worker")
    for id, ahead in (("back", 0.0), ("forward", _HOURS)):
        publish(scene.url, _timed("again", id), topic="timed")
        wait_until((worker.folder / f"begun-{id}-1").exists, 30)
        clock.set(ahead)
        assert [(task["id"], task["msg"]) for task in collect(scene.url, "done", 1, limit=30)] == [(id, "2")]


@pytest.mark.slow
@on("sqlite", long=("nsq",))
def test_a_delay_is_as_long_as_asked_for(scene: Stage, clock: MachineClock, start: Start, tmp_path: Path) -> None:
    """A task sent to be done in a second is done then, though the clock was set back by hours in between."""
    clock.set(_HOURS)
    sent = ("send", "timed", "0", "--bus", scene.url, "--delay", "1s", "--id", "late")
    assert taskbus(*sent, cwd=tmp_path, env=clock.environment).code == 0
    clock.set(0)
    start("worker")
    assert [task["id"] for task in collect(scene.url, "done", 1, limit=30)] == ["late"]
