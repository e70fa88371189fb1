"""The round trip with bare ``nats-py``: a pull, a confirmed publish, a confirmed acknowledgement, as our adapter's."""

from __future__ import annotations

import asyncio
import sys

import nats
import orjson
from nats.errors import TimeoutError as Nothing
from nats.js.errors import BadRequestError

from benchmarks.drains import now_text
from benchmarks.round_trip.measure import measured

_STREAM = "round-trip"


async def answer(url: str) -> None:
    """Do tasks until killed."""
    stream = (await nats.connect(url)).jetstream()
    await _ensure(stream)
    source = await stream.pull_subscribe("trip.todo", durable="todo", stream=_STREAM)
    while True:
        try:
            messages = await source.fetch(1, timeout=5)
        except Nothing:
            continue
        for message in messages:
            task = orjson.loads(message.data)
            task |= {"started": now_text(), "result": "complete", "msg": "", "completed": now_text()}
            await stream.publish("trip.done", orjson.dumps(task))
            await message.ack_sync()


async def ask(url: str, count: int) -> None:
    """Print the percentiles of ``count`` trips."""
    client = await nats.connect(url)
    stream = client.jetstream()
    await _ensure(stream)
    source = await stream.pull_subscribe("trip.done", durable="done", stream=_STREAM)

    async def trip(body: bytes) -> None:
        await stream.publish("trip.todo", body)
        for message in await source.fetch(1, timeout=20):
            await message.ack_sync()

    print(*await measured(trip, count))
    await client.close()


async def _ensure(stream: nats.js.JetStreamContext) -> None:
    try:
        await stream.add_stream(name=_STREAM, subjects=["trip.*"])
    except BadRequestError:  # the other process made it at the same moment
        await stream.stream_info(_STREAM)


if __name__ == "__main__":
    asyncio.run(answer(sys.argv[2]) if sys.argv[1] == "answer" else ask(sys.argv[2], int(sys.argv[3])))
