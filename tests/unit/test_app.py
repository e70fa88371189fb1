"""The application around a worker: its start, its end and its exit codes; and what a receiver must never lose."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import bus
from bus import (
    BadNameError,
    BusURL,
    BusURLError,
    Consumer,
    CorruptError,
    Delivery,
    OutputClosedError,
    UnreachableError,
    UnsupportedError,
)
from bus.memory.bus import MemoryBus, MemoryConsumer
from task import Context, Outcome, Reject, SettingsError, Task, Worker, WorkerError, complete, error, retry_later
from task import drain as drain_module
from task import receiver as receiver_module
from task.app import exit_code, run, run_command, run_worker
from task.exits import Exit
from task.options import WorkerOptions
from task.worker_app import WorkerApp, endpoint
from tests.helpers import await_until
from tests.unit.engine import Rig, eventually, rig, worker

QUICK = worker(lambda task, ctx: None)


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """An application sets up the logs of the whole process."""
    logger = logging.getLogger("taskbus")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def _options(**given: Any) -> WorkerOptions:
    return WorkerOptions(**given)


class Gate:
    """A worker's deed that begins, and ends when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.values: list[str] = []

    def __call__(self, task: Task, ctx: Context) -> None:
        self.values.append(task.value)
        self.begun.set()
        self.open.wait(20)

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 20)


# --- on-receipt: acknowledged before it is begun


@pytest.mark.parametrize(
    ("do", "dead", "done"),
    [
        (lambda task, ctx: error("no"), [], ["error"]),
        (lambda task, ctx: retry_later(1), ["retries-exhausted"], ["error"]),
        (lambda task, ctx: complete(), [], ["complete"]),
    ],
)
def test_on_receipt_every_end_is_told(do: Any, dead: list[str], done: list[str]) -> None:
    """Nothing can be tried again, so an error is final whatever --retries says, and nothing ends in silence."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(do), ack="on-receipt", retries=3):
                assert [task["result"] for task in await r.take(len(done))] == done
                assert [letter["code"] for letter in await r.take(len(dead), "t.dead")] == dead
            assert (await r.bus.depth("t", "t")).total == 0

    asyncio.run(scenario())


def test_on_receipt_what_a_shutdown_cuts_short_is_dead_lettered() -> None:
    """It is no longer on the bus, so it cannot be handed back."""

    async def scenario() -> None:
        begun = threading.Event()

        def do(task: Task, ctx: Context) -> Outcome:
            begun.set()
            ctx.wait(20)
            ctx.raise_if_cancelled()
            return complete()

        async with rig() as r:
            await r.send(Task("t", id="7"))
            async with r.running(worker(do), ack="on-receipt", kill_time=0.01):
                assert await asyncio.to_thread(begun.wait, 20)
            (letter,) = await r.take(1, "t.dead")
            assert (letter["code"], letter["id"]) == ("interrupted", "7")
            assert r.exit is Exit.INTERRUPTED

    asyncio.run(scenario())


def test_on_receipt_no_more_is_taken_than_can_be_begun() -> None:
    """After any number of tiny tasks, what waits behind a long one is still on the bus, whatever --prefetch says."""

    async def scenario() -> None:
        gate = Gate()

        def do(task: Task, ctx: Context) -> None:
            if task.value == "long":
                gate(task, ctx)

        async with rig() as r:
            await r.send(*(Task("t") for _ in range(500)), Task("t", "long"), *(Task("t") for _ in range(500)))
            async with r.running(worker(do), ack="on-receipt", prefetch=100):
                await gate.has_begun()
                assert (await r.bus.depth("t", "t")) == (500, 0, 0)
                gate.open.set()
                await r.take(1001)

    asyncio.run(scenario())


# --- faults of the input


class Failing(Consumer):
    """Yields one delivery, then the disk fails."""

    topic, group = "t", "t"

    def __init__(self) -> None:
        self.given = False
        self.failed = asyncio.Event()
        self.acknowledged: list[Delivery] = []

    @property
    def ended(self) -> bool:
        return False

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        if self.given:
            self.failed.set()
            raise CorruptError("the disk gives an error")
        self.given = True
        return [Delivery(b'{"type":"t","task":"v"}', "1")]

    async def ack(self, deliveries: Any) -> None:
        self.acknowledged += deliveries

    async def nack(self, deliveries: Any, *, delay: float = 0.0, reason: str | None = None) -> None:
        raise AssertionError

    release = nack

    async def extend(self, deliveries: Any) -> list[Delivery]:
        return []

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def failing_input(r: Rig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Failing]:
    consumer = Failing()

    async def give(*args: object) -> Consumer:
        return consumer

    with monkeypatch.context() as patch:
        patch.setattr(type(r.bus), "consumer", give)
        yield consumer


def test_what_was_received_is_done_when_the_input_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error ends the application, but not before the task in progress is done and settled."""

    async def scenario() -> None:
        gate = Gate()
        async with rig() as r:
            async with failing_input(r, monkeypatch) as consumer:
                work = asyncio.create_task(r.app(worker(gate), prefetch=1).run())
                await gate.has_begun()
                await consumer.failed.wait()
                gate.open.set()
                with pytest.raises(CorruptError):
                    await work
            assert len(consumer.acknowledged) == 1
            assert [task["task"] for task in await r.take(1)] == ["v"]

    asyncio.run(scenario())


# --- faults of the output


def test_a_result_that_could_not_be_delivered_is_in_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop while the bus refuses results hands the task back and exits with BUS."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))

            async def refuse(*args: object) -> None:
                raise UnreachableError("no route")

            monkeypatch.setattr(MemoryConsumer, "finish", refuse)
            monkeypatch.setattr(receiver_module, "_GRACE", 0.05)
            async with r.running(QUICK, kill_time=0.05) as app:
                await await_until(lambda: app.receiver is not None and app.receiver.trouble == "no route")
            assert r.exit is Exit.BUS
            assert (await r.bus.depth("t", "t")) == (1, 0, 0)

    asyncio.run(scenario())


def test_a_closed_output_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody will ever take the results: the error is raised, the task goes back."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))

            async def refuse(*args: object) -> None:
                raise OutputClosedError("its reader has gone")

            monkeypatch.setattr(MemoryConsumer, "finish", refuse)
            with pytest.raises(OutputClosedError):
                await r.app(QUICK).run()
            assert (await r.bus.depth("t", "t")) == (1, 0, 0)

    asyncio.run(scenario())


# --- starting and stopping


def test_a_stop_before_the_start() -> None:
    """Nothing is opened and nothing begun."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            app = r.app(QUICK)
            app.stop()
            assert await app.run() is Exit.OK
            assert (await r.bus.depth("t", "t")) == (1, 0, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("stops", [1, 2])
def test_a_stop_while_it_opens(tmp_path: Path, stops: int) -> None:
    """An output pipe without a reader keeps nobody, and leaves no cancellation behind."""

    async def scenario() -> None:
        os.mkfifo(tmp_path / "out")
        async with rig() as r:
            app = r.app(QUICK, out=str(tmp_path / "out"))
            work = asyncio.create_task(app.run())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for _ in range(stops):
                app.stop()
            assert await work is Exit.OK
            assert work.cancelling() == 0

    asyncio.run(scenario())


def test_a_cancellation_that_is_no_stop_is_one(tmp_path: Path) -> None:
    """Whoever cancels the task that runs the application sees it cancelled."""

    async def scenario() -> None:
        os.mkfifo(tmp_path / "out")
        async with rig() as r:
            work = asyncio.create_task(r.app(QUICK, out=str(tmp_path / "out")).run())
            await asyncio.sleep(0)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

    asyncio.run(scenario())


# --- mistakes told before anything is done


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"done_topic": "t"}, "--done-topic t: the tasks are received from there too"),
        ({"dead_topic": "t"}, "--dead-topic t: the tasks are received from there too"),
        ({"topic": "t.dead"}, "--dead-topic t.dead: the tasks are received from there too"),
        ({"in_": "{file}", "out": "{file}"}, "is the file the tasks are read from"),
        ({"in_": "{file}", "out": "{link}"}, "is the file the tasks are read from"),
        ({"in_": "lines:{file}", "out": "lines:{file}?sync=false"}, "is the file the tasks are read from"),
    ],
)
def test_results_that_would_be_received_again(tmp_path: Path, options: dict[str, str], told: str) -> None:
    """An endless loop is refused."""
    (tmp_path / "tasks").touch()
    (tmp_path / "link").symlink_to("tasks")
    names = {"file": str(tmp_path / "tasks"), "link": str(tmp_path / "link")}
    given = {key: value.format(**names) for key, value in options.items()}

    with pytest.raises(SettingsError) as caught:
        WorkerApp(QUICK, _options(**{"bus": "memory:loop", **given}))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"done_topic": "-", "topic": "x"},
        {"in_": "-", "out": "-", "done_topic": "t"},
        {"out": "sqlite:other.db", "done_topic": "t"},
        {"in_": "/dev/null", "out": "/dev/null"},
        {"in_": "{folder}/a", "out": "{folder}/b", "done_topic": "t"},
    ],
)
def test_results_that_go_elsewhere(tmp_path: Path, options: dict[str, str]) -> None:
    """The same name on another bus, and a pair of pipes, are no loop."""
    given = {key: value.format(folder=tmp_path) for key, value in options.items()}

    WorkerApp(QUICK, _options(**{"bus": "memory:noloop", **given}))


@pytest.mark.parametrize("option", ["topic", "group", "done_topic", "dead_topic"])
def test_names_that_no_bus_takes(option: str) -> None:
    """Told at the start, not at the first result."""
    with pytest.raises(BadNameError, match="'so not'"):
        WorkerApp(QUICK, _options(**{"bus": "memory:names", option: "so not"}))


@pytest.mark.no_faults("an injected fault counts as an attempt")
def test_drain_without_a_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the bus does not tell its depth the worker ends when nothing came for a lease, its own retries apart."""
    monkeypatch.setattr(MemoryBus, "capabilities", dataclasses.replace(MemoryBus.capabilities, depth=False))
    monkeypatch.setattr(drain_module, "_LEAST", 0.1)
    attempts: list[float] = []

    def once_more(task: Task, ctx: Context) -> Outcome | None:
        attempts.append(monotonic())
        return error("not yet") if len(attempts) == 1 else None

    async def scenario() -> None:
        async with rig("?lease=100ms") as r:
            await r.send(Task("t"))
            app = r.app(worker(once_more), drain=True, retries=1, retry_delay=1.5, retry_backoff="fixed")
            assert await app.run() is Exit.OK
            assert monotonic() - attempts[1] > 1.0

    asyncio.run(scenario())
    assert len(attempts) == 2
    assert attempts[1] - attempts[0] >= 1.5


def test_drain_of_a_bus_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is not taken for emptiness while the bus is out of order."""
    monkeypatch.setattr(MemoryBus, "capabilities", dataclasses.replace(MemoryBus.capabilities, depth=False))
    monkeypatch.setattr(drain_module, "_MORE", 0.0)
    monkeypatch.setattr(drain_module, "_LEAST", 0.1)
    asked: list[float] = []

    async def health(self: MemoryBus) -> bus.Health:
        asked.append(monotonic())
        return bus.Health(len(asked) > 3)

    async def scenario() -> None:
        async with rig("?lease=100ms") as r:
            drain = drain_module.Drain(r.bus, "t", "t", 0.1)
            await eventually(drain.empty)

    monkeypatch.setattr(MemoryBus, "health", health)
    asyncio.run(scenario())
    assert len(asked) == 4
    assert asked[3] - asked[0] >= 0.3


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("-", BusURL("stdio")),
        ("tasks.jsonl", BusURL("lines", "tasks.jsonl")),
        ("./a b.jsonl", BusURL("lines", "./a b.jsonl")),
        ("/dev/fd/3", BusURL("lines", "/dev/fd/3")),
        ("sqlite:work.db", BusURL("sqlite", "work.db")),
        ("lines:x?sync=false", BusURL("lines", "x", options={"sync": "false"})),
    ],
)
def test_what_in_and_out_name(text: str, url: BusURL) -> None:
    """The standard streams, a file, or a bus."""
    assert endpoint(text) == url


def test_a_file_called_like_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sqlite:work.db").touch()

    assert endpoint("sqlite:work.db") == BusURL("lines", "sqlite:work.db")


# --- exit codes


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (BusURLError("x"), Exit.USAGE),
        (BadNameError("x"), Exit.USAGE),
        (UnsupportedError("x"), Exit.USAGE),
        (SettingsError("x"), Exit.USAGE),
        (WorkerError("x"), Exit.USAGE),
        (WorkerError("x", stuck=True), Exit.STUCK),
        (UnreachableError("x"), Exit.BUS),
        (OutputClosedError("x"), Exit.BUS),
        (CorruptError("x"), Exit.BUS),
    ],
)
def test_exit_codes(problem: bus.TaskbusError, code: Exit, capfd: pytest.CaptureFixture[str]) -> None:
    """What the user wrote wrong is 2, what the bus does is 3, a process to be replaced is 5; each with its sentence."""
    assert exit_code(problem) is code
    assert capfd.readouterr().err == "taskbus: error: x\n"


def test_run_exits(tmp_path: Path) -> None:
    """run never returns: it ends the program with the exit code."""
    (tmp_path / "in").write_bytes(b'{"type":"t","task":"v"}\n')
    with pytest.raises(SystemExit) as caught:
        run(QUICK, argv=["--in", str(tmp_path / "in"), "--out", str(tmp_path / "out")])

    assert caught.value.code == Exit.OK
    assert b'"result":"complete"' in (tmp_path / "out").read_bytes()


def test_run_with_a_launch_function(tmp_path: Path) -> None:
    """It gets what it needs by closure, and the type is said beside it."""

    class Needs(Worker):
        def __init__(self, task: Task, greeting: str) -> None:
            super().__init__(task)
            self.greeting = greeting

        def do_task(self, ctx: Context) -> Outcome:
            return complete(f"{self.greeting} {self.task.value}")

    (tmp_path / "in").write_bytes(b'{"type":"greet","task":"you"}\n')
    args = ["--in", str(tmp_path / "in"), "--out", str(tmp_path / "out")]

    assert run_command(lambda task: Needs(task, "hi"), args, type="greet") == Exit.OK
    assert b'"msg":"hi you"' in (tmp_path / "out").read_bytes()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--no-such-option"], "No such option"),
        (["surplus"], "unexpected extra argument"),
        (["--isolation", "thread"], "an async do_task runs inline or in a process"),
        (["--in", "/nowhere/in"], "cannot read /nowhere/in"),
    ],
)
def test_mistakes_of_the_command_line(args: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A sentence on stderr, exit code 2, nothing on stdout."""

    class Async(Worker):
        type = "t"

        async def do_task(self, ctx: Context) -> Outcome:
            raise Reject("never")

    assert run_command(Async, [*args, "--out", "/dev/null"]) == Exit.USAGE
    out, err = capfd.readouterr()
    assert (out, told in err) == ("", True), err


def test_a_worker_without_a_type(capfd: pytest.CaptureFixture[str]) -> None:
    """It is told to set one."""

    def launch(task: Task) -> Worker:
        return QUICK(task)

    assert run_command(launch, []) == Exit.USAGE
    assert "set its `type`" in capfd.readouterr().err


def test_two_runs_in_one_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output is given back at the end, so that the next run has it again."""
    (tmp_path / "in").write_bytes(b'{"type":"t","task":"v"}\n')
    options = WorkerOptions(in_=str(tmp_path / "in"), log_level="error")
    loud = worker(lambda task, ctx: os.write(1, b"from the worker\n") and None)

    for _ in range(2):
        assert run_worker(loud, options) is Exit.OK
    os.write(1, b"after\n")

    out, err = capfd.readouterr()
    assert [line[:11] for line in out.splitlines()] == ['{"type":"t"', '{"type":"t"', "after"]
    assert err == "from the worker\n" * 2
