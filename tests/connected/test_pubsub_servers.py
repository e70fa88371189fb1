"""Pub/Sub with an emulator that goes and comes back, with wrong addresses, and under workers and the command line."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("google.pubsub_v1")

import bus
from bus import BusError, BusURLError, Message, UnauthorisedError, UnconfirmedError, UnreachableError
from bus.pubsub.connection import Connection
from task import Task, encode
from tests.helpers import await_until, wait_until
from tests.servers.pubsub import PubsubEmulator, pubsub_emulator
from tests.taskbus_command import command_line, environment, taskbus

_WORKER = """
import os, time
from task import Context, Outcome, Worker, complete, run

LEDGER = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Noted(Worker):
    type = "noted"

    def do_task(self, ctx: Context) -> Outcome:
        os.write(LEDGER, f"{self.task.id}\\n".encode())
        time.sleep(float(self.task.value or 0))
        return complete()


run(Noted)
"""


def _start(folder: Path, url: str, name: str, *more: str) -> subprocess.Popen[bytes]:
    (folder / "noted.py").write_text(_WORKER)
    command = [sys.executable, "noted.py", "--bus", url, *more]
    with (folder / name).open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment(), stderr=log)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    assert worker.wait(timeout=30) == 0


def _ledger(folder: Path) -> Counter[str]:
    path = folder / "ledger"
    return Counter(path.read_text().split()) if path.exists() else Counter()


async def _send(url: str, *tasks: Task) -> None:
    async with bus.connect(url) as b, await b.producer() as producer:
        await producer.publish_many([Message("noted", encode(task)) for task in tasks])


def test_a_long_task_runs_once(pubsub: PubsubEmulator, tmp_path: Path) -> None:
    """A task that takes three times the lease is done once, with a second worker standing by."""
    url = f"{pubsub.url}&lease=1s"
    asyncio.run(_send(url, Task("noted", "3.5", id="long")))
    workers = [_start(tmp_path, url, f"log-{number}") for number in range(2)]
    try:
        found = taskbus("pipe", "--from", url, "--topic", "done", "--to", "stdio:", "--limit", "1", cwd=tmp_path)
        assert found.tasks[0]["id"] == "long", found
        assert found.tasks[0]["result"] == "complete"
    finally:
        for worker in workers:
            _stop(worker)
    assert _ledger(tmp_path) == Counter(["long"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_workers_share(pubsub: PubsubEmulator, tmp_path: Path) -> None:
    """Two instances do 20,000 tasks between them, each once, and each is reported once."""
    count = 20_000
    ids = {f"{number:05d}" for number in range(count)}
    logs = [tmp_path / f"log-{number}" for number in range(2)]
    workers = [_start(tmp_path, pubsub.url, log.name, "--log-format", "json") for log in logs]
    try:
        wait_until(lambda: all('"event":"started"' in log.read_text() for log in logs))
        asyncio.run(_send(pubsub.url, *(Task("noted", id=id) for id in sorted(ids))))
        wait_until(lambda: len(_ledger(tmp_path)) >= count, 200)
    finally:
        for worker in workers:
            _stop(worker)
    assert _ledger(tmp_path) == Counter(ids)
    received = [json.loads(log.read_text().splitlines()[-1])["received"] for log in logs]
    assert sum(received) == count
    assert min(received) > count // 20, received

    async def reported() -> Counter[bytes]:
        found: Counter[bytes] = Counter()
        async with bus.connect(pubsub.url) as b, await b.consumer("done", "count") as consumer:
            while batch := await consumer.receive(1000, timeout=1.0):
                found.update(delivery.body.partition(b'"id":"')[2][:5] for delivery in batch)
                await consumer.ack(batch)
        return found

    assert asyncio.run(reported()) == Counter(id.encode() for id in ids)


def test_an_emulator_that_comes_back_empty(
    pubsub: PubsubEmulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed during traffic and started anew, without anything: all sides make again what they need, by themselves.

    What is published from then on arrives at the group that is back first, and at all once they are back. Meanwhile
    health tells, and nobody asks more than a few times a second.
    """
    caplog.set_level(logging.WARNING, "taskbus.bus")
    calls = 0
    call = Connection.call

    async def counted(self: Connection, *args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        return await call(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "call", counted)
    got: dict[str | None, Counter[int]] = {"g": Counter(), "h": Counter(), None: Counter()}

    async def receive(consumer: bus.Consumer) -> None:
        while batch := await consumer.receive(20):
            got[consumer.group].update(int(delivery.body) for delivery in batch)
            try:
                await consumer.ack(batch)
            except BusError:
                continue

    def whole(counted: Counter[int], start: int) -> bool:
        return set(counted) >= set(range(start, 400))

    async def publish(producer: bus.Producer, start: int) -> None:
        for number in range(start, start + 100):
            while True:
                try:
                    await producer.publish("t", b"%d" % number)
                    break
                except (UnreachableError, UnconfirmedError):
                    await asyncio.sleep(0.05)

    async def run() -> None:
        async with bus.connect(f"{pubsub.url}&lease=2s") as b, bus.connect(f"{pubsub.url}&lease=2s") as other:
            consumers = [await b.consumer("t", "g"), await other.consumer("t", "g"), await b.consumer("t", "h")]
            consumers.append(await other.consumer("t", None))
            receiving = [asyncio.create_task(receive(consumer)) for consumer in consumers]
            producer = await b.producer()
            await publish(producer, 0)
            await publish(producer, 100)
            await asyncio.to_thread(pubsub.kill)
            before = calls
            waiting = asyncio.create_task(publish(producer, 200))
            async with asyncio.timeout(10):
                while (await b.health()).ok:  # noqa: ASYNC110 - there is nobody to wait for
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2.0)  # time in which a hot loop would show
            assert calls - before < 200
            assert not (await other.health()).ok
            await asyncio.to_thread(pubsub.start)
            async with asyncio.timeout(30):
                await waiting
                # All but the first group to be back are as new: they get what is published from then on.
                await await_until(lambda: caplog.text.count("there is a new one") == 4, 30)
                await publish(producer, 300)
                await await_until(lambda: all(whole(each, 300) for each in got.values()), 30)
                assert whole(got["g"], 200) or whole(got["h"], 200)
                while not ((await b.health()).ok and (await other.health()).ok):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.05)
            for consumer in consumers:
                await consumer.close()
            await asyncio.gather(*receiving)

    asyncio.run(run())


def test_a_worker_outlives_the_emulator(pubsub: PubsubEmulator, tmp_path: Path) -> None:
    """A worker in the middle of a task when the emulator is killed and comes back empty ends it and does the next."""
    worker = _start(tmp_path, f"{pubsub.url}&lease=5s", "log", "--log-format", "json")
    try:
        wait_until(lambda: '"event":"started"' in (tmp_path / "log").read_text())
        asyncio.run(_send(pubsub.url, Task("noted", "1", id="before")))
        wait_until(lambda: "before" in _ledger(tmp_path))
        pubsub.kill_and_start()
        asyncio.run(_send(pubsub.url, Task("noted", id="after")))
        wait_until(lambda: "after" in _ledger(tmp_path), 30)
        done = taskbus("pipe", "--from", pubsub.url, "--topic", "done", "--to", "stdio:", "--limit", "2", cwd=tmp_path)
        assert {task["id"] for task in done.tasks} == {"before", "after"}
    finally:
        _stop(worker)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_killed_worker_is_replaced_within_its_lease(pubsub: PubsubEmulator, tmp_path: Path) -> None:
    """With the shortest lease of the service, ten seconds, another worker begins the task of a killed one in twelve."""
    url = f"{pubsub.url}&lease=10s"
    asyncio.run(_send(url, Task("noted", "0.5", id="it")))
    first = _start(tmp_path, url, "log-1")
    try:
        wait_until(lambda: _ledger(tmp_path)["it"] == 1, 20)
    finally:
        first.kill()
        first.wait()
    killed = time.monotonic()
    second = _start(tmp_path, url, "log-2")
    try:
        wait_until(lambda: _ledger(tmp_path)["it"] == 2, 20)
        assert time.monotonic() - killed < 12
    finally:
        _stop(second)


def test_nobody_there() -> None:
    """An emulator that does not run is an UnreachableError at once, and says where it was looked for."""

    async def run() -> None:
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
            await bus.connect("pubsub://p?emulator=127.0.0.1:9").open()
        assert time.monotonic() - began < 5
        b = bus.connect("pubsub://p?emulator=127.0.0.1:9")
        assert not (await b.health()).ok
        for _ in range(2):
            with pytest.raises(UnreachableError):
                await b.open()
        await b.close()

    asyncio.run(run())


def test_a_project_that_does_not_exist(tmp_path: Path) -> None:
    """It is named, with what to do."""

    async def run(server: PubsubEmulator) -> None:
        async with bus.connect(server.url.replace("taskbus-test", "one")) as b, await b.producer() as producer:
            await producer.publish("t", b"{}")
        with pytest.raises(BusURLError, match="check the project"):
            async with bus.connect(server.url) as b, await b.producer() as producer:
                await producer.publish("t", b"{}")

    with pubsub_emulator(tmp_path, "--projects=one,two") as server:
        asyncio.run(run(server))


def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there are no Application Default Credentials the error tells how to get some, and no key is an option."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "PUBSUB_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnauthorisedError, match="gcloud auth application-default login"):
        asyncio.run(bus.connect("pubsub://my-project").open())
    with pytest.raises(BusURLError, match="no option 'credentials'"):
        bus.connect("pubsub://my-project?credentials={}")


def test_the_command_line(pubsub: PubsubEmulator, tmp_path: Path) -> None:
    """``taskbus worker``, ``send --wait``, ``topics``, ``depth`` and ``--drain`` on Pub/Sub, by the URL alone."""
    url = "pubsub://taskbus-test?emulator=true&lease=10s"
    env = {"TASKBUS_BUS": url, "PUBSUB_EMULATOR_HOST": pubsub.address}
    first = taskbus("send", "hello-world", "early", cwd=tmp_path, env=env)
    assert first.code == 0, first
    drained = taskbus("worker", "hello-world", "--drain", cwd=tmp_path, env=env)
    assert drained.code == 0, drained
    log = tmp_path / "log"
    with log.open("wb") as err:
        worker = subprocess.Popen(command_line("worker", "hello-world"), env=environment(env), stderr=err, cwd=tmp_path)
    try:
        wait_until(lambda: "working" in log.read_text())
        sent = taskbus("send", "hello-world", "world", "--wait", cwd=tmp_path, env=env)
        assert sent.code == 0, sent
        assert sent.tasks[0]["msg"] == "hello world"
        topics = taskbus("topics", cwd=tmp_path, env=env)
        assert "hello-world" in topics.out, topics
        assert "~" not in topics.out
        depth = taskbus("depth", "hello-world", "--group", "hello-world", cwd=tmp_path, env=env)
        assert depth.code != 0
        assert "num_undelivered_messages in Cloud Monitoring" in depth.err
        moved = taskbus("pipe", "--topic", "done", "--to", "stdio:", "--drain", cwd=tmp_path, env=env)
        assert [task["task"] for task in moved.tasks] == ["early", "world"]
    finally:
        worker.terminate()
        assert worker.wait(timeout=20) == 0
    assert "Traceback" not in log.read_text()
