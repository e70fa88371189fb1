"""taskiq with the pull broker of taskiq-nats on JetStream, one worker process."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from benchmarks.peers.command import batch, main, send, url
from benchmarks.peers.tally import begun

_nats: Any = import_module("taskiq_nats")
broker = _nats.PullBasedJetStreamBroker([url() or "nats://127.0.0.1"], pull_consume_batch=batch())


async def _noop(sent: float) -> None:
    begun(sent)


noop = broker.task(task_name="noop")(_noop)


def send_all() -> None:
    """Send what the command line says."""

    async def run() -> None:
        await broker.startup()
        await send(noop.kiq)
        await broker.shutdown()

    asyncio.run(run())


if __name__ == "__main__":
    main(
        "taskiq_jetstream",
        ["taskiq", "worker", "benchmarks.peers.taskiq_jetstream:broker", "--workers", "1", "--log-level", "WARNING"],
    )
