"""Whole applications on NATS JetStream: several workers, and the commands that look and send."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import bus
from bus import Message
from task import Task, encode
from tests.helpers import wait_until
from tests.servers.nats import NatsServer, nats_server
from tests.taskbus_command import environment, start, taskbus

_WORKER = """
import os
from task import Context, Outcome, Worker, complete, run

LEDGER = os.open(f"ledger-{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Noted(Worker):
    type = "noted"

    def do_task(self, ctx: Context) -> Outcome:
        os.write(LEDGER, f"{self.task.id}\\n".encode())
        return complete()


run(Noted)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One running server."""
    with nats_server(tmp_path) as server:
        yield server


@pytest.mark.slow
def test_two_workers_share_and_do_nothing_twice(server: NatsServer, tmp_path: Path) -> None:
    """Of 20,000 tasks two worker processes do each exactly once, and both do a good part."""
    (tmp_path / "noted.py").write_text(_WORKER)
    ids = [f"{number:06d}" for number in range(20_000)]

    async def send() -> None:
        async with bus.connect(server.url) as b, await b.producer() as producer:
            await producer.publish_many([Message("noted", encode(Task("noted", id=id))) for id in ids])

    command = [sys.executable, "noted.py", "--bus", server.url, "--log-format", "json"]
    logs = [tmp_path / name for name in ("log1", "log2")]
    workers = []
    for log in logs:
        with log.open("wb") as err:
            workers.append(subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=err))
    try:
        wait_until(lambda: all('"event":"started"' in log.read_text() for log in logs), 20)
        asyncio.run(send())
        wait_until(lambda: _depth(server, "noted", "noted") == 0, 60)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        codes = [worker.wait(20) for worker in workers]
    assert codes == [0, 0]
    done = [(tmp_path / f"ledger-{worker.pid}").read_text().split() for worker in workers]
    assert min(map(len, done)) > 1000
    assert sorted(done[0] + done[1]) == ids


def _depth(server: NatsServer, topic: str, group: str) -> int:
    async def look() -> int:
        async with bus.connect(server.url) as b:
            return (await b.depth(topic, group)).total

    return asyncio.run(look())


def test_a_task_is_sent_done_and_looked_at(server: NatsServer, tmp_path: Path) -> None:
    """``worker``, ``send --wait``, ``tail``, ``depth``, ``peek``, ``topics`` and dead letters, by the URL alone."""
    at = ("--bus", server.url)
    sent = taskbus("send", "hello-world", "early", *at, cwd=tmp_path)
    assert sent.code == 0, sent
    assert [task["task"] for task in taskbus("peek", "hello-world", *at, cwd=tmp_path).tasks] == ["early"]
    tail = start("tail", "done", "--from-start", "--limit", "2", *at, cwd=tmp_path)
    worker = start("worker", "hello-world", *at, "--log-format", "json", cwd=tmp_path)
    try:
        done = taskbus("send", "hello-world", "world", "--wait", "--timeout", "20s", *at, cwd=tmp_path)
        assert done.code == 0, done
        assert done.tasks[0]["result"] == "complete"
        out, _ = tail.communicate(timeout=20)
        assert out.count(b'"result":"complete"') == 2
        depth = taskbus("depth", "hello-world", *at, cwd=tmp_path)
        assert [(line["group"], line["total"]) for line in depth.tasks] == [("hello-world", 0)]

        async def spoil() -> None:
            async with bus.connect(server.url) as b, await b.producer() as producer:
                await producer.publish("hello-world", b"no task")

        asyncio.run(spoil())
        wait_until(lambda: _depth(server, "hello-world.dead", "any") == 1)
        (letter,) = taskbus("peek", "hello-world.dead", *at, cwd=tmp_path).tasks
        assert letter["body"] == "no task"
        topics = taskbus("topics", *at, cwd=tmp_path).out.split()
        assert topics == ["done", "hello-world", "hello-world.dead"]
    finally:
        worker.terminate()
        _, log = worker.communicate(timeout=20)
        tail.kill()
        tail.communicate()
    assert worker.returncode == 0, log


def test_a_server_without_jetstream(tmp_path: Path) -> None:
    """The error says what the server lacks and how to start it, and not only after a time-out."""
    with nats_server(tmp_path, jetstream=False) as server:
        for command in (["send", "t", "x"], ["worker", "hello-world"], ["topics"]):
            found = taskbus(*command, "--bus", server.url, cwd=tmp_path)
            assert found.code != 0
            assert "has no JetStream now: start the server with -js" in found.err


def test_nobody_listens(tmp_path: Path) -> None:
    """A port on which nobody listens is named, in one line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = taskbus("send", "t", "x", "--bus", f"nats://127.0.0.1:{port}", cwd=tmp_path)
    assert found.code != 0
    assert f"nats at 127.0.0.1:{port}" in found.err
    assert found.err.count("\n") == 1


def test_what_listens_is_no_nats_server(tmp_path: Path) -> None:
    """Whatever else greets on the port is told from a NATS server, and what never says anything is given up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail.example.com ESMTP\r\n")

        greeting = threading.Thread(target=greet)
        greeting.start()
        found = taskbus("send", "t", "x", "--bus", url, cwd=tmp_path)
        greeting.join()
        assert "is no NATS server: it sent b'220 mail" in found.err, found
        silent = taskbus("send", "t", "x", "--bus", f"{url}?timeout=300ms", cwd=tmp_path)
        assert "no answer within 0.3 s" in silent.err, silent
    assert 0 not in (found.code, silent.code)


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    """Without nkeys a key cannot sign: the error names the extra. All else works without it."""
    (tmp_path / "nkeys.py").write_text("raise ImportError('No module named nkeys', name='nkeys')\n")
    (tmp_path / "seed").write_text("SUSECRET")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    url = f"nats://127.0.0.1?nkey_file={tmp_path}/seed"
    found = taskbus("send", "t", "x", "--bus", url, cwd=tmp_path, env=env)
    assert found.code != 0
    assert "pip install 'taskbus[nats]'" in found.err
    assert "SUSECRET" not in found.err
    with nats_server(tmp_path) as server:
        assert taskbus("send", "t", "x", "--bus", server.url, cwd=tmp_path, env=env).code == 0
