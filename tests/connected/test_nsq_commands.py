"""The commands of ``docs/buses/nsq.md`` on a real nsqd, and what they say when something is wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

import bus
from bus import Message
from bus.conformance.bench import bodies
from task import Task, encode
from tests.helpers import wait_until
from tests.servers.nsq import Nsqd
from tests.taskbus_command import start, taskbus

_LIMIT = 60


def _listening(nsqd: Nsqd, topic: str) -> bool:
    """Whether anybody reads the topic."""
    with urlopen(f"http://127.0.0.1:{nsqd.http}/stats?format=json&topic={topic}", timeout=5) as answer:
        found = json.load(answer)["topics"] or []
    return any(channel["client_count"] for entry in found for channel in entry["channels"] or [])


@contextmanager
def _running(*args: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start(*args, cwd=cwd)
    try:
        yield process
    finally:
        process.terminate()
        _, err = process.communicate(timeout=_LIMIT)
        assert b"Traceback" not in err, err


def test_the_quick_start(nsqd: Nsqd, tmp_path: Path) -> None:
    """send, tail, depth, topics and dead letters, as the page shows them, without a word about HTTP in the URL."""
    bus = ("--bus", f"nsq://127.0.0.1:{nsqd.tcp}" + ("" if nsqd.http == nsqd.tcp + 1 else f"?http={nsqd.http}"))
    sent = taskbus("send", "hello-world", "first", *bus, cwd=tmp_path)
    assert sent.code == 0, sent
    before = taskbus("depth", "hello-world", "--group", "hello-world", *bus, cwd=tmp_path)
    assert before.tasks[0]["ready"] == 1
    with (
        _running("tail", "done", "--limit", "2", *bus, cwd=tmp_path) as tail,
        _running("tail", "hello-world.dead", "--limit", "1", *bus, cwd=tmp_path) as dead,
    ):
        wait_until(lambda: _listening(nsqd, "done") and _listening(nsqd, "hello-world.dead"))
        with _running("worker", "hello-world", *bus, cwd=tmp_path):
            done = taskbus("send", "hello-world", "second", "--wait", "--timeout", "30s", *bus, cwd=tmp_path)
            assert done.code == 0, done
            assert taskbus("send", "other", "wrong", "--topic", "hello-world", *bus, cwd=tmp_path).code == 0
            shown, _ = tail.communicate(timeout=_LIMIT)
            letter, _ = dead.communicate(timeout=_LIMIT)
    assert {json.loads(line)["task"] for line in shown.splitlines()} == {"first", "second"}
    assert json.loads(letter)["code"] == "wrong-type"
    after = taskbus("depth", "hello-world", *bus, cwd=tmp_path)
    assert [(line["group"], line["total"]) for line in after.tasks] == [("hello-world", 0)]
    assert {"done", "hello-world", "hello-world.dead"} <= set(taskbus("topics", *bus, cwd=tmp_path).out.split())


def test_a_drained_worker_ends(nsqd: Nsqd, tmp_path: Path) -> None:
    """``worker --drain`` does all that is there, also what only a listener had seen, and ends with 0."""
    url = nsqd.url()
    with _running("tail", "hello-world", "--limit", "3", "--bus", url, cwd=tmp_path) as tail:
        wait_until(lambda: _listening(nsqd, "hello-world"))
        lines = b"\n".join(encode(Task("hello-world", str(number))) for number in range(3))
        assert taskbus("send", "--file", "-", "--bus", url, cwd=tmp_path, stdin=lines).code == 0
        tail.communicate(timeout=_LIMIT)
    drained = taskbus("worker", "hello-world", "--drain", "--bus", url, cwd=tmp_path)
    assert drained.code == 0, drained
    assert '"complete":3' in drained.err.replace(" ", "") or "complete=3" in drained.err, drained


def test_the_first_message_after_a_pause_comes_at_once(nsqd: Nsqd) -> None:
    """After six idle seconds a message comes long before anything that only happens now and then could bring it."""

    async def run() -> None:
        async with (
            bus.connect(nsqd.url()) as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            for limit in (1, 50):
                assert await consumer.receive(limit, timeout=6.0) == []
                for body in bodies(3):
                    await producer.publish("t", body)
                    # The lease is a minute, a heartbeat ten seconds.
                    (delivery,) = await consumer.receive(limit, timeout=5.0)
                    assert delivery.body == body
                    await consumer.ack([delivery])

    asyncio.run(run())


def test_a_lone_message_does_not_wait_in_a_buffer(nsqd: Nsqd, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are asked for, and also after many came, nsqd sends a lone message at once.

    It may keep messages in its buffer for half a minute here, which is long past the end of this test.
    """
    monkeypatch.setattr("bus.nsq.connection._OUTPUT_BUFFER", 30_000)

    async def run() -> None:
        async with (
            bus.connect(nsqd.url()) as b,
            await b.producer() as producer,
            await b.consumer("t", "g") as consumer,
        ):
            many = 5000
            await producer.publish_many([Message("t", b"%d" % number) for number in range(many)])
            came = calls = 0
            while came < many:
                deliveries = await consumer.receive(1000, timeout=20.0)
                assert deliveries
                came, calls = came + len(deliveries), calls + 1
                await consumer.ack(deliveries)
            assert calls < many / 10, "many did not come together"
            for number in range(50):
                await producer.publish("t", b"%d" % number)
                (delivery,) = await consumer.receive(1000, timeout=20.0)
                assert delivery.body == b"%d" % number
                await consumer.ack([delivery])

    asyncio.run(asyncio.wait_for(run(), 25.0))


def test_wrong_ports_are_told(nsqd: Nsqd, tmp_path: Path) -> None:
    """The HTTP port for the TCP port, the other way round, and a port where nothing is: exit code 3 and what to do."""
    http_for_tcp = taskbus("send", "t", "v", "--bus", f"nsq://127.0.0.1:{nsqd.http}", cwd=tmp_path)
    tcp_for_http = taskbus("depth", "t", "--bus", f"nsq://127.0.0.1:{nsqd.tcp}?http={nsqd.tcp}", cwd=tmp_path)
    nothing = taskbus("send", "t", "v", "--bus", "nsq://127.0.0.1:1?timeout=1s", cwd=tmp_path)
    for result, said in (
        (http_for_tcp, "that is an HTTP port"),
        (tcp_for_http, "give the HTTP port of the nsqds as http="),
        (nothing, "check that it runs there"),
    ):
        assert result.code == 3, result
        assert said in result.err, result
        assert len(result.err.splitlines()) == 1, result


def test_max_lease_of_the_server_is_told(tmp_path: Path) -> None:
    """A worker on an nsqd that keeps messages for less than ``max_lease`` is told so before it takes any."""
    server = Nsqd(tmp_path, "-max-msg-timeout=2m")
    server.start()
    try:
        refused = taskbus("worker", "hello-world", "--bus", server.url(), cwd=tmp_path)
        taken = taskbus("worker", "hello-world", "--drain", "--bus", server.url(max_lease="2m"), cwd=tmp_path)
    finally:
        server.stop()
    assert refused.code == 2, refused
    assert "max_lease=2m" in refused.err
    assert taken.code == 0, taken


@pytest.mark.timeout(120)
def test_a_task_that_lasts_longer_than_the_server_permits(tmp_path: Path) -> None:
    """The worker is warned, its task cancelled, and a later result of it does not count."""
    server = Nsqd(tmp_path, "-max-msg-timeout=3s")
    server.start()
    (tmp_path / "long.py").write_text(
        "import time\n"
        "from task import Context, Outcome, Worker, complete\n\n\n"
        "class Long(Worker):\n"
        '    type = "long"\n\n'
        "    def do_task(self, ctx: Context) -> Outcome:\n"
        "        if ctx.attempt == 1:\n"
        "            while not ctx.cancelled:\n"
        "                time.sleep(0.05)\n"
        '        return complete(f"attempt {ctx.attempt}")\n'
    )
    url = server.url(lease="1s", max_lease="3s")
    worker = start("worker", "./long.py", "--bus", url, "--log-format", "json", cwd=tmp_path)
    try:
        done = taskbus("send", "long", "x", "--wait", "--timeout", "30s", "--bus", url, cwd=tmp_path)
    finally:
        worker.terminate()
        _, err = worker.communicate(timeout=_LIMIT)
        server.stop()
    assert done.code == 0, done
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events == ["started", "lease-ceiling", "lease-lost", "stopped"]
    assert [task["msg"] for task in done.tasks] == ["attempt 2"]
