"""Notes every done task and every dead letter: ``URL LEDGER``. It runs until it is told to stop."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import sys
import time
from pathlib import Path

import orjson

import bus
from bus import Bus, BusError, Delivery
from tests.nemesis.ledger import Event, Pen

__all__ = ["identity", "main"]

#: How many of the last messages are known again.
_REMEMBERED = 20_000
_POISON = re.compile(rb"poison-[0-9a-f]+")


def identity(body: bytes) -> str:
    """The id of the task of a done task or dead letter; of what was no task, the mark that the nemesis put into it."""
    data = orjson.loads(body)
    original = data["body"].encode() if "body" in data else base64.b64decode(data.get("body_base64", ""))
    marked = _POISON.search(original)
    return marked.group().decode() if marked else str(data.get("id", "-"))


async def note(b: Bus, topic: str, pen: Pen) -> None:
    """Note what comes on one topic. What the bus delivers to us again is noted once."""
    seen: dict[tuple[str, str], None] = {}
    async with await b.consumer(topic, "oracle") as consumer:
        while deliveries := await consumer.receive(100):
            fresh: list[str] = []
            for delivery in deliveries:
                id = identity(delivery.body)
                if (delivery.id, id) not in seen:
                    seen[delivery.id, id] = None
                    fresh.append(id)
                if len(seen) > _REMEMBERED:
                    del seen[next(iter(seen))]
            if fresh:
                pen.write(fresh)
            await _ack(consumer, deliveries)


async def _ack(consumer: bus.Consumer, deliveries: list[Delivery]) -> None:
    while True:
        try:
            await consumer.ack(deliveries)
            return
        except bus.LeaseLostError:
            return
        except BusError as error:
            if not error.transient:
                raise
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(0.1)


async def observe(url: str, folder: Path) -> None:
    """Note both topics until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with bus.connect(url) as b:
        notes = [
            asyncio.create_task(note(b, "done", Pen(folder, Event.DONE))),
            asyncio.create_task(note(b, "noted.dead", Pen(folder, Event.DEAD))),
        ]
        ending = asyncio.create_task(stop.wait())
        await asyncio.wait([*notes, ending], return_when=asyncio.FIRST_COMPLETED)
        for each in notes:
            if each.done():
                each.result()
            each.cancel()
        await asyncio.gather(*notes, return_exceptions=True)
        ending.cancel()


def main() -> None:
    """Run it as the arguments say; a bus that is away at the start is waited for."""
    while True:
        try:
            return asyncio.run(observe(sys.argv[1], Path(sys.argv[2])))
        except BusError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if not error.transient:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()
