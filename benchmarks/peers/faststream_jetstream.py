"""FastStream with a pull subscription on JetStream, one worker process, acknowledged when done."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from benchmarks.peers.command import batch, main, send, url
from benchmarks.peers.tally import begun

_faststream: Any = import_module("faststream")
_nats: Any = import_module("faststream.nats")
_client: Any = import_module("nats")
_broker = _nats.NatsBroker(url() or "nats://127.0.0.1", logger=None)
_stream = _nats.JStream("faststream")
app = _faststream.FastStream(_broker)


async def _noop(sent: float) -> None:
    begun(sent)


_broker.subscriber(
    "faststream-noop", stream=_stream, durable="faststream-noop", pull_sub=_nats.PullSub(batch_size=batch())
)(_noop)


def send_all() -> None:
    """Send what the command line says."""

    async def one(sent: float) -> None:
        await _broker.publish(sent, "faststream-noop", stream="faststream")

    async def run() -> None:
        # The worker makes it too, when it starts.
        client = await _client.connect(url())
        await client.jetstream().add_stream(name="faststream", subjects=["faststream-noop"])
        await client.close()
        async with _broker:
            await send(one)

    asyncio.run(run())


if __name__ == "__main__":
    main("faststream_jetstream", ["faststream", "run", "benchmarks.peers.faststream_jetstream:app"])
