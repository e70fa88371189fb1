"""``make demo``: the whole thing at work, as separate processes on one bus, with an observer that counts.

The bus is the embedded one, or that of ``make demo BUS=URL``: nothing else changes.

A cron taskmaster makes tasks, two hello-world workers share them, an on-done taskmaster turns each completed one into
a task of a second type, and a worker of your own does those. The observer subscribes to every topic, so what it counts
is what really travelled.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import orjson

import bus
from task.app import exit_code

__all__ = ["main"]

#: Seconds during which tasks are made, and those the rest of the work may then take.
_MAKE, _FINISH = 8.0, 15.0
_RULES = Path(__file__).parent / "demo_rules"
_TOPICS = ("hello-world", "shout", "done")


class Observer:
    """Everything that travelled, by topic and task id."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}
        self.chained: dict[str, str] = {}
        self.done: Counter[tuple[str, str]] = Counter()

    def see(self, topic: str, body: bytes) -> None:
        task = orjson.loads(body)
        if topic == "hello-world":
            self.made[task["id"]] = task["task"]
            _say("cron made", f"hello-world  {task['task']}")
        elif topic == "shout":
            self.chained[task["id"]] = task["task"]
            _say("on-done made", f"shout        {task['task']}")
        else:
            self.done[(task["type"], task["id"])] += 1
            _say("done", f"{task['type']:<12} {task['result']}: {task['msg']}")

    @property
    def lost(self) -> int:
        """Tasks that were made and not done, or done and not chained."""
        hellos = [id for id in self.made if not self.done[("hello-world", id)]]
        shouts = [id for id in self.chained if not self.done[("shout", id)]]
        return len(hellos) + len(shouts) + max(0, len(self.made) - len(self.chained))


def main(url: str | None = None) -> int:
    """Run the demo on the bus ``url``, by default on the embedded one; 0 if nothing was lost."""
    try:
        return asyncio.run(_demo(url))
    except bus.TaskbusError as error:
        return exit_code(error)
    except KeyboardInterrupt:
        return 130


async def _demo(given: str | None) -> int:
    with tempfile.TemporaryDirectory(prefix="taskbus-demo-") as folder:
        url = given or f"sqlite:{folder}/demo.db"
        rules = shutil.copytree(_RULES, Path(folder) / "rules")
        observer = Observer()
        async with bus.connect(url) as b, AsyncExitStack() as stack:
            watchers = [asyncio.create_task(_watch(b, topic, observer)) for topic in _TOPICS]
            stack.push_async_callback(_cancel, watchers)
            await _subscribed(b)
            workers = [
                await _start(stack, url, folder, *command)
                for command in (
                    ("worker", "hello-world"),
                    ("worker", "hello-world"),
                    ("worker", str(rules / "shout.py")),
                    ("taskmaster", "on-done", str(rules / "on_done.toml")),
                )
            ]
            cron = await _start(stack, url, folder, "taskmaster", "cron", str(rules / "cron.toml"))
            await _until(lambda: bool(observer.made) or cron.returncode is not None, _FINISH)
            await _until(lambda: cron.returncode is not None, _MAKE)
            await _stop(cron)
            await _until(lambda: not observer.lost, _FINISH)
            shares = [await _share(process) for process in workers[:2]]
        return _summary(observer, shares)


async def _watch(b: bus.Bus, topic: str, observer: Observer) -> None:
    async with await b.consumer(topic, None) as consumer:
        _ready.add(topic)
        while True:
            deliveries = await consumer.receive(100)
            for delivery in deliveries:
                observer.see(topic, delivery.body)
            await consumer.ack(deliveries)


#: Topics whose observer has subscribed; nothing is started before, so that nothing goes unseen.
_ready: set[str] = set()


async def _subscribed(b: bus.Bus) -> None:
    await _until(lambda: len(_ready) == len(_TOPICS), _FINISH)


async def _start(stack: AsyncExitStack, url: str, folder: str, *command: str) -> asyncio.subprocess.Process:
    _say("start", "taskbus " + " ".join(command))
    environment = {**os.environ, "TASKBUS_BUS": url, "TASKBUS_LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "apps.cli.main", *command),
        env=environment,
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
    )
    stack.push_async_callback(_stop, process)
    return process


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _share(process: asyncio.subprocess.Process) -> int:
    """Stop a worker; how many tasks it did, as its last log line says."""
    process.send_signal(signal.SIGTERM)
    _, log = await process.communicate()
    for line in reversed(log.splitlines()):
        entry = orjson.loads(line)
        if entry.get("event") == "stopped":
            return int(entry.get("complete", 0))
    return 0


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until ``condition()`` or until the seconds have passed."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # noqa: ASYNC110  (other processes set no event here)
        await asyncio.sleep(0.05)


def _summary(observer: Observer, shares: list[int]) -> int:
    hellos = sum(1 for (kind, _), count in observer.done.items() if kind == "hello-world" and count)
    shouts = sum(1 for (kind, _), count in observer.done.items() if kind == "shout" and count)
    twice = sum(count - 1 for count in observer.done.values() if count > 1)
    one, other = shares
    print(f"\nthe two hello-world workers did {one} and {other}")  # noqa: T201
    print(  # noqa: T201
        f"made {len(observer.made)}, done {hellos}, chained {len(observer.chained)}, done {shouts}, "
        f"done twice {twice}, lost = {observer.lost}"
    )
    return 0 if observer.made and not observer.lost else 1


def _say(what: str, text: str) -> None:
    now = time.localtime(time.time())  # without this the second may be the one before: that clock ticks coarsely
    print(f"{time.strftime('%H:%M:%S', now)}  {what:<13} {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
