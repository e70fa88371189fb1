"""Redrive, and retries later than the bus can delay, on real servers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bus import Message, connect
from task import Task, encode
from tests.acceptance.test_retry_and_delay import next_in, running
from tests.servers.nats import nats_server
from tests.servers.nsq import Nsqd
from tests.taskbus_command import taskbus

NOT_YET = """
from task import Context, Outcome, RetryLater, Worker, complete


class NotYet(Worker):
    type = "not-yet"

    def do_task(self, ctx: Context) -> Outcome:
        if ctx.attempt < 3:
            raise RetryLater(0.5, "not yet")
        return complete(f"attempt {ctx.attempt}")
"""


@pytest.fixture(params=["nsq", "nats"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a server."""
    folder = tmp_path / "server"
    folder.mkdir()
    if request.param == "nats":
        with nats_server(folder) as nats:
            yield nats.url
        return
    with ExitStack() as stack:
        nsqd = Nsqd(folder)
        nsqd.start()
        stack.callback(nsqd.stop)
        yield nsqd.url()


def bury(url: str, count: int) -> None:
    """Put letters of tasks 0 to ``count`` into t.dead, every third with the code late."""

    async def put() -> None:
        async with connect(url) as bus, await bus.producer() as producer:
            letters = [
                {
                    "dead": "2026-01-01T00:00:00Z",
                    "code": "crashed" if number % 3 else "late",
                    "topic": "t",
                    "message_id": str(number),
                    "body": encode(Task("t", id=str(number))).decode(),
                }
                for number in range(count)
            ]
            await producer.publish_many([Message("t.dead", json.dumps(letter).encode()) for letter in letters])

    asyncio.run(put())


def ids(url: str, topic: str, count: int) -> list[str]:
    """Ids of the tasks in a topic, of which there must be so many."""

    async def take() -> list[str]:
        found: list[str] = []
        async with connect(url) as bus, await bus.consumer(topic, "reader") as consumer:
            while len(found) < count and (batch := await consumer.receive(1000, timeout=10.0)):
                found += [json.loads(delivery.body)["id"] for delivery in batch]
                await consumer.ack(batch)
        return found

    return asyncio.run(take())


def test_redrive(server: str, tmp_path: Path) -> None:
    """A preview takes nothing; then those that fit are sent and the others stay, and go with the next."""
    bury(server, 900)
    args = ("redrive", "t.dead", "--bus", server)
    for _ in range(2):
        looked = taskbus(*args, "--code", "late", cwd=tmp_path)
        assert looked.code == 0, looked
        assert len(looked.tasks) == 300
        assert "would send 300 of 900 dead letters" in looked.err

    sent = taskbus(*args, "--code", "late", "--execute", cwd=tmp_path)
    assert "sent 300 of 900 dead letters" in sent.err, sent
    rest = taskbus(*args, "--execute", cwd=tmp_path)
    assert "sent 600 of 600 dead letters" in rest.err, rest
    none = taskbus(*args, "--execute", cwd=tmp_path)
    assert "sent 0 of 0 dead letters" in none.err, none
    assert sorted(ids(server, "t", 900), key=int) == [str(number) for number in range(900)]


def test_later_than_nsq_can(nsqd: Nsqd, tmp_path: Path) -> None:
    """RetryLater on a server that delays for a moment only: with --delay-topic none comes before its time."""
    url = nsqd.url(max_delay="50ms")
    (tmp_path / "not_yet.py").write_text(NOT_YET)
    with (
        running("worker", "./not_yet.py", "--bus", url, "--delay-topic", "delay", cwd=tmp_path),
        running("taskmaster", "delay", "--bus", url, cwd=tmp_path),
    ):
        began = time.monotonic()
        sent = taskbus("send", "not-yet", "x", "--id", "i", "--bus", url, cwd=tmp_path)
        assert sent.code == 0, sent
        _, done = next_in(url, "done")
    assert (done["id"], done["result"], done["msg"]) == ("i", "complete", "attempt 3")
    assert done["meta"]["attempts"] == "2"
    assert time.monotonic() - began >= 1.0
