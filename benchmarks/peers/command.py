"""The command line of every peer: ``python -m benchmarks.peers.NAME send|work URL [COUNT GAP]``.

Needs nothing but Python, for it runs in the environment of the peers. ``send`` sends one task after the other, each
with the time as its value, waits for the confirmation where there is one, and prints the seconds it took. ``work``
becomes the peer's own worker program. Both put the URL into ``PEER_URL``, where the module finds it when imported.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

__all__ = ["batch", "main", "send", "send_calls", "url"]


def url() -> str:
    """Where the server or the file is."""
    return os.environ.get("PEER_URL", "")


def batch() -> int:
    """How many messages are fetched at once: many to empty a queue, one where few come.

    A fetch of many by nats-py may keep a lone message for seconds when the one before timed out.
    """
    return int(os.environ.get("PEER_BATCH", "1"))


def main(name: str, worker: list[str]) -> None:
    """Do what the command line says; ``worker`` is a program beside the interpreter and its arguments."""
    os.environ["PEER_URL"] = sys.argv[2]
    if sys.argv[1] == "work":
        os.execv(Path(sys.executable).parent / worker[0], worker)
    # As a module of its own name, as the worker's program sees it: names of tasks are made of it.
    os.execv(
        sys.executable,
        [sys.executable, "-c", f"import benchmarks.peers.{name} as peer; peer.send_all()", *sys.argv[3:]],
    )


async def send(one: Callable[[float], Awaitable[object]]) -> None:
    """Send as many as the command line says, with as many seconds between them."""
    count, gap = int(sys.argv[1]), float(sys.argv[2])
    began = time.perf_counter()
    for _ in range(count):
        await one(time.time())
        if gap:
            await asyncio.sleep(gap)
    print(time.perf_counter() - began)


def send_calls(one: Callable[[float], object]) -> None:
    """The same with a call that is not awaited."""

    async def awaited(sent: float) -> None:
        one(sent)

    asyncio.run(send(awaited))
