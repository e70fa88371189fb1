"""The workflow taskmaster as a real process, killed at random moments in the midst of a run."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from bus import Bus, Consumer, Message, connect
from task.codec import decode, encode, encode_done
from task.outcome import Result
from task.task import Task
from tests.flows import Flow
from tests.taskbus_command import start, taskbus

_PARTS = 1500
#: A fan-out, a task that follows each of them, one that waits for all; every tenth task fails at first.
FILE = f"""
[[job]]
type = "split"

[[job]]
type = "part"
depends_on = "split"
for_each = "1..{_PARTS}"
task = "{{item}}"
retry = {{ count = 2, delay = "0s" }}

[[job]]
type = "check"
each = "part"
task = "{{job.part.msg}}"

[[job]]
type = "all"
depends_on = "check"
task = "{{job.check.completed}}"
"""
_TYPES = ("split", "part", "check", "all")
_AT = "2026-01-01T00:00:00.000Z"
_KILLS = 25


class Workers:
    """Does tasks of every type, at most so many as it is told to."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._consumers: dict[str, Consumer] = {}
        #: How often each id was done.
        self.done: Counter[str] = Counter()

    async def work(self, most: int) -> None:
        """Do up to ``most`` tasks; returns when so many were done. May be cancelled."""
        producer = await self._bus.producer()
        for kind in _TYPES:
            if kind not in self._consumers:
                self._consumers[kind] = await self._bus.consumer(kind, kind)
        left = most
        while left > 0:
            for consumer in self._consumers.values():
                batch = await consumer.receive(min(left, 50) or 1, timeout=0.005)
                if batch:
                    tasks = [decode(delivery.body) for delivery in batch]
                    await producer.publish_many([Message("done", self._do(task)) for task in tasks])
                    await consumer.ack(batch)
                    left -= len(batch)
                if left <= 0:
                    return

    def _do(self, task: Task) -> bytes:
        self.done[str(task.id)] += 1
        fails = task.type == "part" and task.value.endswith("0") and task.meta["attempt"] == "1"
        return encode_done(task, "error" if fails else "complete", f"did {task.value}", _AT, _AT)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_while_runs_go_on(tmp_path: Path) -> None:
    """Killed 25 times in a run of 3,002 tasks: the ids that were made are those made without kills, and no others."""
    (tmp_path / "flow.toml").write_text(FILE)
    expected = _without_kills(tmp_path / "expected")
    done = asyncio.run(_killed(tmp_path, random.Random(4)))
    twice = done.total() - len(done) - _PARTS // 10
    print(f"{len(done)} tasks, {_KILLS} kills, {twice} done twice")
    assert set(done) == expected
    assert len(expected) == 2 * _PARTS + 2
    assert twice <= _KILLS * 500
    shown = taskbus("workflow", "list", "--state", "flow.db", "--json", cwd=tmp_path).tasks
    assert [run["state"] for run in shown] == ["Completed"]


def _without_kills(folder: Path) -> set[str]:
    folder.mkdir()
    flow = Flow(folder, FILE)
    flow.request()
    flow.finish()
    assert flow.run["state"] == "Completed"
    return {str(task.id) for task in flow.all}


async def _killed(folder: Path, dice: random.Random) -> Counter[str]:
    url = f"sqlite:{folder}/work.db"
    async with connect(url) as bus:
        watch = await bus.consumer("done", "watch")
        await (await bus.producer()).publish("requests", encode(Task("flow", id="request")))
        workers = Workers(bus)
        for _ in range(_KILLS):
            process = await _started(folder, url)
            working = asyncio.create_task(workers.work(2 * (3 * _PARTS) // (3 * _KILLS)))
            await asyncio.sleep(dice.uniform(0.0, 0.3))  # any moment will do, so there is none to wait for
            process.kill()
            await asyncio.to_thread(process.communicate)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            assert not await _ended(watch), "it was done before it was killed often enough"
        process = await _started(folder, url)
        working = asyncio.create_task(workers.work(10 * _PARTS))
        async with asyncio.timeout(120):
            while not await _ended(watch, 1.0):
                pass
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
        return workers.done


async def _started(folder: Path, url: str) -> subprocess.Popen[bytes]:
    args = ("taskmaster", "workflow", "flow.toml", "--bus", url, "--state", "flow.db", "--log-format", "json")
    process = start(*args, cwd=folder, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    line = await asyncio.to_thread(process.stderr.readline)
    assert b'"event":"started"' in line, line
    return process


async def _ended(watch: Consumer, timeout: float = 0.0) -> bool:
    """Whether the end of the run was told among the done tasks that came since."""
    ended = False
    while batch := await watch.receive(1000, timeout=timeout or 0.01):
        await watch.ack(batch)
        for delivery in batch:
            task = decode(delivery.body)
            if task.type == "flow":
                assert task.result is Result.COMPLETE, task.msg
                ended = True
        timeout = 0.0
    return ended
