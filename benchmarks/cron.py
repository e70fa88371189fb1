"""Very many cron rules: how long they take to load, their memory, and how late their tasks are confirmed.

``python -m benchmarks --cron`` prints a table. Each load is measured in a process of its own, on SQLite, with the state
in a file of its own. *Lateness* is the moment a publish was confirmed minus the nominal instant. The rules are spread
over the seconds of a minute, or all due at second 0 of it, which is the worst there is. ``nats`` is spread, and has the
bus and the state in JetStream. With ``reload`` the rules are read again while they fire, a tenth of them changed, and
only what fires from then on is counted. ``bare`` is a loop that publishes as many ready messages, in batches of the
same size, through the same producer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import orjson

from benchmarks.measure import rss_mb
from bus import Message, Producer, connect
from task.collector import calm_collector
from taskmasters.clock import SystemClock
from taskmasters.cron.keep import kept
from taskmasters.cron.options import CronOptions
from taskmasters.cron.reread import CronReader
from taskmasters.cron.taskmaster import CronTaskmaster
from tests.servers.nats import NatsServer

__all__ = ["KINDS", "ticks"]

#: How the rules are spread, and whether they are read again meanwhile.
KINDS = ("spread", "reload", "minute-0", "nats")
#: Messages published at a time by the taskmaster.
_BATCH = 5000
#: Seconds before the minute.
_LEAD = 3.0
_RULE = """[[rule]]
id = "r{number:06}"
cron = "{second} * * * * *"
type = "t{topic}"
task = "s3://lake/{{yyyy}}/{{mm}}/{{dd}}?n={number}"

"""


def ticks(folder: Path, kind: str, count: int, seconds: float) -> dict[str, float]:
    """What is measured of so many rules in a process of its own, over so many seconds of ticks."""
    path = folder / f"{kind}.toml"
    dice = random.Random(1)
    with path.open("w") as file:
        for number in range(count):
            second = 0 if kind == "minute-0" else dice.randrange(60)
            file.write(_RULE.format(number=number, second=second, topic=number % 20))
    command = [sys.executable, "-m", "benchmarks.cron", str(path), kind, str(seconds)]
    with ExitStack() as stack:
        if kind == "nats":
            command.append(stack.enter_context(NatsServer(folder).running()).url)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = orjson.loads(done.stdout)
    return found


class _Timed(Producer):
    """Notes how late each message is when it is confirmed."""

    def __init__(self, producer: Producer, clock: _Clock) -> None:
        self._producer = producer
        self._clock = clock
        self.late: list[float] = []

    async def publish_many(self, messages: Sequence[Message]) -> None:
        await self._producer.publish_many(messages)
        now = self._clock.now()
        # All instants are whole minutes and seconds, and nothing is a minute late.
        for message in messages:
            text = message.body.partition(b'"cron":"')[2]
            self.late.append((now - int(text[17:19])) % 60)

    async def close(self) -> None:
        await self._producer.close()


class _Clock(SystemClock):
    """One on which a minute begins a few seconds after it was asked for the first time."""

    def __init__(self) -> None:
        self._offset = 0.0

    def begin(self, before: float) -> None:
        """Make it so many seconds before the minute."""
        self._offset = 60.0 - before - time.time() % 60

    def now(self) -> float:
        return time.time() + self._offset

    async def wait_until(self, moment: float) -> None:
        await super().wait_until(moment - self._offset)


async def _measure(path: Path, kind: str, seconds: float, nats: str) -> dict[str, float]:
    clock = _Clock()
    calm_collector()  # as the command does
    began, cpu = time.perf_counter(), time.process_time()
    reader = CronReader()
    rules = reader.load(str(path))
    loaded, loaded_cpu = time.perf_counter() - began, time.process_time() - cpu
    options = CronOptions(state=f"{nats}/cron" if nats else f"{path}.state.db")
    async with AsyncExitStack() as stack:
        state = stack.enter_context(kept(str(path), options)).state
        bus = await stack.enter_async_context(connect(nats or f"sqlite:{path}.db"))
        producer = await stack.enter_async_context(await bus.producer())
        timed = _Timed(producer, clock)
        clock.begin(_LEAD)
        began = time.perf_counter()
        taskmaster = CronTaskmaster(rules, timed, state, clock)
        started = time.perf_counter() - began
        # All at the same instant are as far ahead as they are each minute.
        clock.begin(_LEAD if kind != "minute-0" else 5 * _LEAD)
        running = asyncio.create_task(taskmaster.run())
        # The first seconds are those of the start.
        await asyncio.sleep(4.0 if kind != "minute-0" else 0.0)
        timed.late.clear()
        cpu, reloading = time.process_time(), 0.0
        if kind == "reload":
            began = time.perf_counter()
            await asyncio.to_thread(_edit, path, len(rules) // 10)
            taskmaster.use(await reader.again(str(path)))
            reloading = time.perf_counter() - began
            await asyncio.sleep(2.0)
        elif kind == "minute-0":
            await _all(timed, len(rules))
        else:
            await asyncio.sleep(seconds)
        cpu = time.process_time() - cpu
        late = sorted(timed.late)
        taskmaster.stop()
        await running
        memory = rss_mb(os.getpid())
        bare = await _bare(producer, len(late))
    return {
        "load": loaded,
        "load_cpu": loaded_cpu,
        "start": started,
        "memory": memory,
        "reload": reloading,
        "ticks": len(late),
        "cpu": cpu / len(late),
        "p50": late[len(late) // 2],
        "p99": late[len(late) * 99 // 100],
        "max": late[-1],
        "bare": bare / len(late),
    }


def _edit(path: Path, count: int) -> None:
    path.write_text(path.read_text().replace('task = "s3://lake/', 'task = "s3://sea/', count))


async def _all(timed: _Timed, count: int) -> None:
    while len(timed.late) < count:  # noqa: ASYNC110 - looking now and then disturbs it less than being told
        await asyncio.sleep(0.1)


async def _bare(producer: Producer, count: int) -> float:
    body = b'{"type":"t1","task":"s3://lake/2026/01/01?n=000001","created":"2026-01-01T00:00:00.000Z","id":"%032d"}'
    messages = [Message("bare", body % number, id=f"{number:032}") for number in range(count)]
    began = time.perf_counter()
    for start in range(0, count, _BATCH):
        await producer.publish_many(messages[start : start + _BATCH])
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("seconds", type=float)
    parser.add_argument("nats", nargs="?", default="", help="the server, instead of SQLite")
    options = parser.parse_args()
    found = asyncio.run(_measure(options.path, options.kind, options.seconds, options.nats))
    sys.stdout.buffer.write(orjson.dumps(found))
