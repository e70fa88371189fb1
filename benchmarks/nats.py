"""NATS JetStream: a no-op worker emptying a stream, and publishing, each beside a bare loop over ``nats-py``.

Both sides of a pair are processes of their own, take the same steps and give the same guarantees: a result is confirmed
before its task is acknowledged, the last acknowledgement of a batch is confirmed, and pulls, publishes and
acknowledgements of different batches overlap.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

import bus
from benchmarks.measure import Run, run_child, run_worker, task_line

__all__ = ["nats_drain", "nats_publish"]

#: Messages per pull of the bare loop, and per gathered batch of publishes. Larger ones made it no faster.
_BATCH = 500
_TOPIC, _DONE = "noop", "done"


def nats_drain(url: str, folder: Path, count: int) -> tuple[Run, Run]:
    """The bare loop's run, and the worker's, over ``count`` tasks queued in the same stream."""
    return _bare(url, folder, count), _worker(url, folder, count)


def nats_publish(url: str, folder: Path, count: int) -> tuple[float, float]:
    """Seconds ``nats-py`` needs to publish ``count`` tasks, each confirmed, as fast as it can, and ``publish_many``."""
    asyncio.run(_clear(url))
    return asyncio.run(_publish_bare(url, count)), asyncio.run(_fill(url, count))


def _bare(url: str, folder: Path, count: int) -> Run:
    _prepare(url, count)
    with tempfile.TemporaryFile("w+", dir=folder) as told:
        run = run_child([sys.executable, "-m", "benchmarks.nats", url, str(count)], folder, told)
        told.seek(0)
        run = replace(run, work=float(told.read()))
    _expect(url, count)
    return run


def _worker(url: str, folder: Path, count: int) -> Run:
    _prepare(url, count)
    run = run_worker(["--bus", url, "--drain"], folder)
    _expect(url, count)
    return run


def _prepare(url: str, count: int) -> None:
    asyncio.run(_clear(url))
    asyncio.run(_fill(url, count))


async def _clear(url: str) -> None:
    import nats
    from nats.js.errors import NotFoundError

    client = await nats.connect(url)
    stream = client.jetstream()
    for topic in (_TOPIC, _DONE):
        try:
            await stream.delete_stream(f"taskbus-{topic}")
        except NotFoundError:
            continue
    await client.close()
    async with bus.connect(url) as b:
        await (await b.consumer(_TOPIC, _TOPIC)).close()
        await (await b.consumer(_DONE, "count")).close()


async def _fill(url: str, count: int) -> float:
    messages = [bus.Message(_TOPIC, task_line(number), id=str(number)) for number in range(count)]
    async with bus.connect(url) as b, await b.producer() as producer:
        began = time.perf_counter()
        await producer.publish_many(messages)
        return time.perf_counter() - began


async def _publish_bare(url: str, count: int) -> float:
    import nats

    client = await nats.connect(url)
    stream = client.jetstream(publish_async_max_pending=4 * _BATCH)
    bodies = [task_line(number) for number in range(count)]
    began = time.perf_counter()
    waiting: list[Any] = []
    for number, body in enumerate(bodies):
        headers = {"Nats-Msg-Id": f"bare-{number}"}
        waiting.append(await stream.publish_async(f"taskbus.{_TOPIC}", body, headers=headers))
    await asyncio.gather(*waiting)
    seconds = time.perf_counter() - began
    await client.close()
    return seconds


def _expect(url: str, count: int) -> None:
    async def look() -> tuple[int, int]:
        async with bus.connect(url) as b:
            return (await b.depth(_DONE, "count")).ready, (await b.depth(_TOPIC, _TOPIC)).total

    if (found := asyncio.run(look())) != (count, 0):
        raise RuntimeError(f"{count} tasks went in, {found[0]} done tasks came out and {found[1]} are left")


async def drain_bare(url: str, count: int) -> None:
    """Take ``count`` tasks, publish each as done and acknowledge it; tells stderr the seconds from the first on."""
    import nats

    client = await nats.connect(url)
    stream = client.jetstream(publish_async_max_pending=4 * _BATCH)
    source = await stream.pull_subscribe(f"taskbus.{_TOPIC}", durable=_TOPIC, stream=f"taskbus-{_TOPIC}")

    async def settle(messages: list[Any], confirmed: list[Any]) -> None:
        await asyncio.gather(*confirmed)
        for message in messages[:-1]:
            await message.ack()
        await messages[-1].ack_sync()

    taken = 0
    began = 0.0
    settling: asyncio.Task[None] | None = None
    fetching = asyncio.create_task(source.fetch(_BATCH, timeout=1))
    while taken < count:
        messages = await fetching
        began = began or time.perf_counter()
        taken += len(messages)
        if taken < count:
            fetching = asyncio.create_task(source.fetch(min(_BATCH, count - taken), timeout=1))
        confirmed = []
        for message in messages:
            task = orjson.loads(message.data)
            task["started"] = _now()
            task["result"] = "complete"
            task["msg"] = ""
            task["completed"] = _now()
            headers = {"Nats-Msg-Id": task["id"]}
            confirmed.append(await stream.publish_async(f"taskbus.{_DONE}", orjson.dumps(task), headers=headers))
        if settling is not None:
            await settling
        settling = asyncio.create_task(settle(messages, confirmed))
    if settling is not None:
        await settling
    sys.stderr.write(f"{time.perf_counter() - began}")
    await client.close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


if __name__ == "__main__":
    asyncio.run(drain_bare(sys.argv[1], int(sys.argv[2])))
