"""Streams that go wrong: everything fails at first, what is no task is among it, and connections end all the time."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from task.codec import encode
from task.dead import original
from task.task import Task
from tests.acceptance.support import publish
from tests.faults.special.stage import Stage, collect, need_faults, on
from tests.nemesis.brokers import serve
from tests.nemesis.footprint import footprint, grown
from tests.taskbus_command import command_line, environment

pytestmark = pytest.mark.timeout(300)
#: A task's value is how many attempts fail.
_STORMY = """
from task import Context, Outcome, Worker, complete, error


class Stormy(Worker):
    type = "stormy"

    def do_task(self, ctx: Context) -> Outcome:
        if ctx.attempt <= int(self.task.value):
            return error("not yet")
        return complete(str(ctx.attempt))
"""
#: Not UTF-8, not JSON, too deep, of another type, and nothing but zeros.
_POISON = (b"\xff\xfe", b"{", b"[" * 5000, b'{"type":"other","task":"","id":"other"}', b"\0" * 40)


@contextmanager
def _stormy(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of such tasks."""
    (folder / "stormy.py").write_text(_STORMY)
    options = ("--retries", "5", "--retry-delay", "1ms", "--max-in-progress", "4", "--log-level", "warning")
    command = command_line("worker", "./stormy.py", "--bus", url, *options)
    process = subprocess.Popen(command, cwd=folder, env=environment())
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sqlite", "nats", "nsq", "kafka", "pubsub"])
def test_nothing_is_left_of_a_burst(name: str, tmp_path: Path) -> None:
    """After thousands of tasks, retries and lost connections a worker takes no more memory, files and threads."""
    need_faults("a long test")
    (tmp_path / "data").mkdir()
    with serve(name, tmp_path / "data") as served, _stormy(tmp_path, served.url) as worker:
        sent = 0
        # Buffers of client libraries have their size after a few.
        for burst in range(4):
            before = footprint(name, worker.pid)
            for _ in range(5):
                publish(served.direct, *_tasks(1000, 0, sent), *_tasks(20, 2, sent + 1000), topic="stormy")
                sent += 1020
                if served.proxy is not None:
                    served.proxy.cut()
            found: set[str] = set()
            while len(found) < 5 * 1020:
                found |= {task["id"] for task in collect(served.direct, "done", 1, quiet=0.0, limit=120)}
            after = footprint(name, worker.pid)
            print(f"{name}, burst {burst}: {before} → {after}")
        assert before is not None
        assert after is not None
        assert not grown([before], [after])
