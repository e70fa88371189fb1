"""Streams that go wrong: everything fails at first, what is no task is among it, and connections end all the time."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import pytest

import bus
from bus import BusError
from task.codec import encode
from task.dead import original
from task.task import Task
from tests.acceptance.support import publish
from tests.faults.special.stage import Stage, collect, need_faults, on
from tests.nemesis.brokers import Served, serve
from tests.nemesis.footprint import Footprint, floor, footprint, grown
from tests.taskbus_command import command_line, environment

pytestmark = pytest.mark.timeout(300)
#: A task's value is how many attempts fail. What LEAK says is kept of each, in bytes.
_STORMY = """
import os
from task import Context, Outcome, Worker, complete, error

LEAK, KEPT = int(os.environ.get("LEAK", "0")), []


class Stormy(Worker):
    type = "stormy"

    def do_task(self, ctx: Context) -> Outcome:
        if LEAK:
            KEPT.append(os.urandom(LEAK))
        if ctx.attempt <= int(self.task.value):
            return error("not yet")
        return complete(str(ctx.attempt))
"""
#: Not UTF-8, not JSON, too deep, of another type, and nothing but zeros.
_POISON = (b"\xff\xfe", b"{", b"[" * 5000, b'{"type":"other","task":"","id":"other"}', b"\0" * 40)
#: Tasks that are there at once, at first: more than the largest window, so that the worker has held as many as it ever
#: will, and the allocator what that takes.
#: Kafka's client needs more of them until it has its size.
_FLOODS, _KAFKA_FLOODS, _FLOOD = 4, 12, 10_000
#: Tasks of a burst, and how many of them are sent at a time.
_BURST, _PART = 5100, 1020
#: Bursts after which client libraries have what they need; how many more there are; and of how many the least is taken:
#: what a moment needs and gives back is no leak.
_WARM, _MORE, _LEAST = 2, 10, 4
#: Bytes kept of each task that must be noticed.
_LEAK = 400


@contextmanager
def _stormy(folder: Path, url: str, *, leak: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of such tasks."""
    (folder / "stormy.py").write_text(_STORMY)
    options = ("--retries", "5", "--retry-delay", "1ms", "--max-in-progress", "4", "--log-level", "warning")
    command = command_line("worker", "./stormy.py", "--bus", url, *options)
    process = subprocess.Popen(command, cwd=folder, env=environment({"LEAK": str(leak)}))
    try:
        yield process
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def _tasks(count: int, fails: int, start: int = 0) -> list[bytes]:
    return [encode(Task("stormy", str(fails), id=f"{number:05d}")) for number in range(start, start + count)]


@pytest.mark.slow
@on()
def test_a_storm_of_retries_with_poison_in_it(scene: Stage, tmp_path: Path) -> None:
    """Every task fails three times and is done at the fourth attempt; what is no task is dead-lettered, each once."""
    tasks = _tasks(200, 3)
    for number, poison in enumerate(_POISON):
        publish(scene.url, *tasks[40 * number : 40 * number + 40], poison, topic="stormy")
    with _stormy(tmp_path, scene.url):
        done = collect(scene.url, "done", len(tasks), limit=120)
        letters = collect(scene.url, "stormy.dead", len(_POISON))

    assert Counter(task["id"] for task in done) == Counter(f"{number:05d}" for number in range(len(tasks)))
    assert {task["msg"] for task in done} == {"4"}
    assert Counter(map(original, letters)) == Counter(_POISON)


def _burst(served: Served, start: int, count: int, part: int) -> None:
    """That many tasks are sent, a part at a time, and done; some fail twice, and connections are cut in between."""
    for first in range(start, start + count, part):
        publish(served.direct, *_tasks(part - 20, 0, first), *_tasks(20, 2, first + part - 20), topic="stormy")
        if served.proxy is not None:
            served.proxy.cut()
    asyncio.run(_await_reports(served.direct, {f"{number:05d}" for number in range(start, start + count)}))


async def _await_reports(url: str, left: set[str]) -> None:
    """Return when all of these tasks were reported."""
    async with bus.connect(url) as b, await b.consumer("done", "collect") as consumer:
        while left:
            batch = await consumer.receive(1000, timeout=120)
            assert batch, f"{len(left)} tasks are not reported, such as {min(left)}"
            left.difference_update(orjson.loads(delivery.body)["id"] for delivery in batch)
            # Whoever was told has been told, whatever becomes of this.
            with suppress(BusError):
                await consumer.ack(batch)


def _growth(name: str, folder: Path, leak: int = 0) -> list[str]:
    """What a worker takes more of after further bursts than after the first."""
    (folder / "data").mkdir()
    taken: list[Footprint] = []
    with serve(name, folder / "data") as served, _stormy(folder, served.url, leak=leak) as worker:
        sent = 0
        for _ in range(_KAFKA_FLOODS if name == "kafka" else _FLOODS):
            _burst(served, sent, _FLOOD, _FLOOD)
            sent += _FLOOD
        for _ in range(_WARM + _MORE):
            _burst(served, sent, _BURST, _PART)
            sent += _BURST
            now = footprint(name, worker.pid)
            assert now is not None
            taken.append(now)
    early, late = floor(taken[_WARM : _WARM + _LEAST]), floor(taken[-_LEAST:])
    print(f"{name}: {[round(each.memory / 2**20, 1) for each in taken]} MiB; {early} → {late}")
    return grown([early], [late])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["sqlite", "file", "nats", "nsq", "kafka", "pubsub"])
def test_nothing_is_left_of_a_burst(name: str, tmp_path: Path) -> None:
    """After thousands of tasks, retries and lost connections a worker takes no more memory, files and threads."""
    need_faults("a long test")
    assert _growth(name, tmp_path) == []


@pytest.mark.slow
def test_what_is_left_of_a_burst_is_noticed(tmp_path: Path) -> None:
    """A worker that keeps a few hundred bytes of each task has grown by this measure."""
    need_faults("a long test")
    (told,) = _growth("sqlite", tmp_path, _LEAK)
    assert told.startswith("memory of the sqlite")
