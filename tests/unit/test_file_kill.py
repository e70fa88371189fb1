"""Processes using a file bus, killed with SIGKILL at every step and at random: nothing lost, nothing done twice."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import bus
from tests.helpers import wait_until

#: Kills itself at the n-th call of the operating system which the bus makes from its thread; a write is half done.
_AT_STEP = """
import asyncio, os, signal, sys, fcntl, threading
import bus, bus.file.appending, bus.file.group, bus.lines.append
from bus import Message
root, kill_at, action = sys.argv[1], int(sys.argv[2]), sys.argv[3]
calls, armed = 0, False
def dying(module, name):
    real = getattr(module, name)
    def call(*args):
        global calls
        if armed:
            calls += 1
            if calls == kill_at:
                if name in ("write", "pwrite"):
                    real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:]) if len(args[1]) > 1 else None
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    setattr(module, name, call)
for name in ("write", "pwrite", "replace", "fsync", "ftruncate", "open", "close"):
    dying(os, name)
dying(fcntl, "flock")
for module in (bus.file.appending, bus.file.group):
    dying(module, "sync_file")
async def main():
    global armed
    async with bus.connect("file:" + root) as b:
        producer = await b.producer()
        if action == "publish":
            armed = True
            await producer.publish_many([Message("t", b"%d" % n * 20) for n in range(5)] + [Message("u", b"u" * 50)])
            return
        consumer = await b.consumer("t", "g")
        if action == "receive":
            armed = True
            await consumer.receive(4)
            return
        batch = await consumer.receive(4)
        armed = True
        if action == "ack":
            await consumer.ack(batch)
        elif action == "nack":
            await consumer.nack(batch, reason="no")
        else:
            await consumer.finish(batch, [Message("done", d.body * 20) for d in batch] + [Message("u", b"x")], producer)
        armed = False
asyncio.run(main())
"""
#: Moves messages from ``t`` to ``done``, in batches of random size, until all of them are done; then exits with 0.
_MOVE = """
import asyncio, random, sys
import bus
from bus import Message
async def main(root, seed):
    chosen = random.Random(seed)
    async with bus.connect(f"file:{root}?lease=200ms") as b:
        producer, consumer = await b.producer(), await b.consumer("t", "g")
        print("ready", flush=True)
        while (await b.depth("t", "g")).total:
            batch = await consumer.receive(chosen.randint(1, 6), timeout=0.05)
            if batch:
                await consumer.finish(batch, [Message("done", d.body + b" " * 3000 + b"!") for d in batch], producer)
asyncio.run(main(*sys.argv[1:]))
"""


class Clock:
    """The present, a minute ahead: every lease of a killed process is over."""

    def __call__(self) -> float:
        return time.time() + 60


async def _left(b: bus.Bus, topic: str) -> list[bytes]:
    """Everything a group still has to do."""
    consumer = await b.consumer(topic, "g")
    got: list[bytes] = []
    while batch := await consumer.receive(100, timeout=0.02):
        got += [delivery.body for delivery in batch]
        await consumer.ack(batch)
    return got


def _run_to_step(root: Path, action: str, step: int) -> bool:
    """Whether the process was killed, rather than finished before it came to that step."""
    if action != "publish":
        root.mkdir()
        (root / "t.jsonl").write_bytes(b"".join(b"%d\n" % n for n in range(6)))
    done = subprocess.run(
        [sys.executable, "-c", _AT_STEP, str(root), str(step), action], capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def _check_finish(root: Path) -> None:
    async def scenario() -> None:
        async with bus.connect(f"file:{root}", clock=Clock()) as b:
            left = await _left(b, "t")
            done, other = await _left(b, "done"), await _left(b, "u")
            tasks = [b"%d" % n for n in range(4)]
            if done:
                assert (sorted(left), sorted(done), other) == ([b"4", b"5"], [task * 20 for task in tasks], [b"x"])
            else:
                assert (sorted(left), other) == ([b"%d" % n for n in range(6)], [])
            # A process that comes later must not find the killed one's outbox again.
            await (await b.producer()).publish("done", b"later")
        async with bus.connect(f"file:{root}", clock=Clock()) as b:
            assert (await _left(b, "t"), await _left(b, "done")) == ([], [b"later"])

    asyncio.run(scenario())


def _check_publish(root: Path) -> None:
    async def scenario() -> None:
        async with bus.connect(f"file:{root}", clock=Clock()) as b:
            await (await b.producer()).publish_many([bus.Message("t", b"next"), bus.Message("u", b"next")])
            whole = [b"%d" % n * 20 for n in range(5)]
            for topic, sent in (("t", whole), ("u", [b"u" * 50])):
                *before, last = await _left(b, topic)
                assert before == sent[: len(before)], "a line that was never whole can be read"
                assert last == b"next"

    asyncio.run(scenario())


def _check_settling(root: Path) -> None:
    async def scenario() -> None:
        async with bus.connect(f"file:{root}", clock=Clock()) as b:
            left = sorted(await _left(b, "t"))
            assert left in ([b"4", b"5"], [b"%d" % n for n in range(6)])

    asyncio.run(scenario())


@pytest.mark.parametrize("action", ["finish", "publish", "ack", "nack", "receive"])
def test_killed_at_every_step(tmp_path: Path, action: str) -> None:
    """Whatever call a process is killed in, publishing and settling happened both or neither, and no line is torn."""
    check = {"finish": _check_finish, "publish": _check_publish}.get(action, _check_settling)
    step, killed = 0, True
    with ThreadPoolExecutor(2) as pool:
        while killed:
            steps = range(step + 1, step + 9)
            step += 8
            for number, was_killed in zip(
                steps, pool.map(lambda n: _run_to_step(tmp_path / f"{n}", action, n), steps), strict=True
            ):
                killed = was_killed
                if was_killed or action == "finish":
                    try:
                        check(tmp_path / f"{number}")
                    except AssertionError as error:
                        raise AssertionError(f"killed at step {number} of {action}: {error}") from error
    assert step > 8, "there are more steps than that"


@pytest.mark.slow
def test_killed_at_random(tmp_path: Path) -> None:
    """Twenty pairs of workers moving messages, killed at random: each is done exactly once, and every line is whole."""
    seed = random.randrange(2**32)
    chosen = random.Random(seed)
    total, kills = 4000, 0
    (tmp_path / "t.jsonl").write_bytes(b"".join(b'{"n":%d}\n' % n for n in range(total)))
    for pair in range(20):
        workers = [_start_moving(tmp_path, f"{seed}-{pair}-{number}") for number in range(2)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
        until = time.monotonic() + chosen.uniform(0.0, 0.05)
        wait_until(lambda until=until: time.monotonic() > until)  # type: ignore[misc]
        for worker in workers:
            worker.kill()
            worker.communicate()
            kills += worker.returncode == -signal.SIGKILL
    last = _start_moving(tmp_path, f"{seed}")
    last.communicate(timeout=60)
    assert last.returncode == 0

    done = Counter((tmp_path / "done.jsonl").read_bytes().splitlines())
    expected = Counter(b'{"n":%d}' % n + b" " * 3000 + b"!" for n in range(total))
    assert done == expected, f"seed {seed}: {(expected - done).total()} lost, {(done - expected).total()} too many"
    assert kills >= 20, f"seed {seed}: only {kills} kills hit; let there be more to do"


def _start_moving(root: Path, seed: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _MOVE, str(root), seed], stdout=subprocess.PIPE)
