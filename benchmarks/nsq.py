"""A no-op worker emptying a topic of a real nsqd, beside bare loops over nsq-py and over our own transport."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

import orjson
from nsq.client import Client
from nsq.reader import Reader
from nsq.response import Message as NsqMessage

import bus
from benchmarks.measure import Run, Watch, run_worker, task_line
from bus.nsq import protocol
from bus.nsq.connection import Connection
from bus.nsq.options import NsqOptions
from tests.servers.nsq import Nsqd

__all__ = ["nsq_drain", "nsq_publish"]

#: The most messages in flight at the bare loop, and the most of one MPUB: what the worker's window comes to.
_BATCH = 1000
#: Batches of results that may be unconfirmed at once.
_PIPELINED = 4


def nsq_drain(folder: Path, count: int) -> tuple[Run, Run, Run]:
    """The runs of a bare loop over nsq-py, of one over our own transport, and of the worker, on one nsqd.

    nsq-py reads four kilobytes at a time and waits for each answer. The other loop shows what the server allows.
    """
    server = _server(folder, count)
    try:
        asyncio.run(_fill(server, "client", count))
        client = _client_drain(server, count)
        asyncio.run(_fill(server, "bare", count))
        bare = asyncio.run(_bare_drain(server, count))
        asyncio.run(_fill(server, "noop", count))
        run = run_worker(["--bus", server.url(), "--drain"], folder)
        found = [asyncio.run(_depth(server, topic)) for topic in ("client-done", "bare-done", "done")]
    finally:
        server.stop()
    for each in found:
        _expect(each, count)
    return client, bare, run


def _client_drain(server: Nsqd, count: int) -> Run:
    """Receive, stamp, publish and wait for the answer, finish: with the classes of nsq-py, as it comes."""
    address = f"127.0.0.1:{server.tcp}"
    reader = Reader(b"client", b"client", nsqd_tcp_addresses=[address], max_in_flight=_BATCH)
    client = Client(nsqd_tcp_addresses=[address])
    watch, taken = Watch(), 0
    while taken < count:
        messages: list[NsqMessage] = []
        while len(messages) < min(_BATCH // 2, count - taken):
            messages += [each for each in reader.read() if isinstance(each, NsqMessage)]
        client.mpub(b"client-done", *[_done(message.body) for message in messages])
        for message in messages:
            message.fin()
        taken += len(messages)
    for connection in reader.connections():
        reader.wait_write(connection)
    run = watch.run()
    for connection in (*reader.connections(), *client.connections()):
        connection.close()
    return run


def nsq_publish(folder: Path, count: int) -> tuple[float, float, float]:
    """Seconds of publishing ``count`` tasks, confirmed: with nsq-py, over our transport bare, by ``publish_many``."""
    server = _server(folder, count)
    bodies = [task_line(number) for number in range(count)]
    try:
        client = _client_publish(server, bodies)
        return client, asyncio.run(_bare_publish(server, bodies)), asyncio.run(_bus_publish(server, bodies))
    finally:
        server.stop()


def _client_publish(server: Nsqd, bodies: list[bytes]) -> float:
    """MPUBs, each confirmed before the next, as nsq-py has it: seconds."""
    client = Client(nsqd_tcp_addresses=[f"127.0.0.1:{server.tcp}"])
    began = time.perf_counter()
    for start in range(0, len(bodies), _BATCH):
        client.mpub(b"client", *bodies[start : start + _BATCH])
    seconds = time.perf_counter() - began
    for connection in client.connections():
        connection.close()
    return seconds


def _server(folder: Path, count: int) -> Nsqd:
    # All in memory: the disk of nsqd is not what is measured.
    server = Nsqd(folder, f"-mem-queue-size={2 * count}")
    server.start()
    return server


async def _connection(server: Nsqd) -> Connection:
    connection = Connection(("127.0.0.1", server.tcp), NsqOptions(), None)
    await connection.open()
    return connection


async def _bare_drain(server: Nsqd, count: int) -> Run:
    """Receive, stamp, publish with pipelined confirmations, and only then finish."""
    source, target = await _connection(server), await _connection(server)
    came: deque[protocol.Message] = deque()
    wake = asyncio.Event()

    def take(messages: list[protocol.Message]) -> None:
        came.extend(messages)
        wake.set()

    async def confirm(answer: asyncio.Future[bytes], ids: list[bytes]) -> None:
        await answer
        source.send(b"".join(map(protocol.finish, ids)))

    source.on_messages = take
    await source.ask(protocol.subscribe("bare", "bare"), "bare")
    watch = Watch()
    source.send(protocol.ready(_BATCH))
    left, waiting = count, set[asyncio.Task[None]]()
    while left:
        wake.clear()
        if not came:
            await wake.wait()
        messages = list(came)
        came.clear()
        bodies = [_done(message.body) for message in messages]
        ids = [message.id for message in messages]
        left -= len(ids)
        waiting.add(asyncio.create_task(confirm(target.ask(protocol.publish("bare-done", bodies), "bare-done"), ids)))
        if len(waiting) >= _PIPELINED:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*waiting)
    await source.fence()
    run = watch.run()
    await source.close()
    await target.close()
    return run


async def _bare_publish(server: Nsqd, bodies: list[bytes]) -> float:
    """MPUBs, all sent before the first confirmation is awaited: seconds."""
    connection = await _connection(server)
    began = time.perf_counter()
    answers = [
        connection.ask(protocol.publish("bare", bodies[start : start + _BATCH]), "bare")
        for start in range(0, len(bodies), _BATCH)
    ]
    await asyncio.gather(*answers)
    seconds = time.perf_counter() - began
    await connection.close()
    return seconds


async def _bus_publish(server: Nsqd, bodies: list[bytes]) -> float:
    async with bus.connect(server.url()) as b, await b.producer() as producer:
        messages = [bus.Message("ours", body) for body in bodies]
        began = time.perf_counter()
        await producer.publish_many(messages)
        return time.perf_counter() - began


async def _fill(server: Nsqd, topic: str, count: int) -> None:
    async with bus.connect(server.url()) as b, await b.producer() as producer:
        await producer.publish_many([bus.Message(topic, task_line(number)) for number in range(count)])


async def _depth(server: Nsqd, topic: str) -> int:
    async with bus.connect(server.url()) as b:
        return (await b.depth(topic, "count")).ready


def _expect(found: int, count: int) -> None:
    if found != count:
        raise RuntimeError(f"{count} tasks went in and {found} done tasks came out")


def _done(body: bytes) -> bytes:
    task = orjson.loads(body)
    task["started"] = _now()
    task["result"] = "complete"
    task["msg"] = ""
    task["completed"] = _now()
    return orjson.dumps(task)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
