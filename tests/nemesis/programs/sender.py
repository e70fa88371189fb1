"""Sends tasks at a pace, each again until it is confirmed: ``URL LEDGER COUNT RATE SEED``.

Started again, it goes on with what the ledger does not say was accepted.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from random import Random

import bus
from bus import BusError, Message
from task import Task, encode
from tests.nemesis.ledger import Event, Ledger, Pen

__all__ = ["main"]

#: Tasks of one publish, where the sender is behind its pace.
_BATCH = 20
#: Seconds between two tries.
_PAUSE = 0.1
#: How many tasks in a thousand fail once, and how many take long.
_FAILING, _LONG = 20, 5
#: Seconds that a long task takes, and at most any other.
_LONG_SECONDS, _SHORT_SECONDS = 3.0, 0.02


def value(number: int, seed: str) -> str:
    """What the task with this number asks of the worker."""
    dice = Random(f"{seed} {number}")
    if dice.randrange(1000) < _LONG:
        return f"{_LONG_SECONDS}"
    short = f"{dice.uniform(0.0, _SHORT_SECONDS):.4f}"
    return f"fail {short}" if dice.randrange(1000) < _FAILING else short


async def send(url: str, folder: Path, count: int, rate: float, seed: str) -> None:
    """Send, and return when all is accepted."""
    attempted, accepted = Pen(folder, Event.ATTEMPTED), Pen(folder, Event.ACCEPTED)
    known = Ledger(folder).count(Event.ACCEPTED)
    todo = [number for number in range(count) if f"{number:07d}" not in known]
    async with bus.connect(url) as b, await b.producer() as producer:
        began, sent = time.monotonic(), 0
        while todo:
            due = int((time.monotonic() - began) * rate) - sent
            if due < 1:
                await asyncio.sleep(1.0 / rate)
                continue
            batch, todo = todo[: min(due, _BATCH)], todo[min(due, _BATCH) :]
            ids = [f"{number:07d}" for number in batch]
            messages = [
                Message("noted", encode(Task("noted", value(number, seed), id=id)), id=id)
                for number, id in zip(batch, ids, strict=True)
            ]
            while True:
                attempted.write(ids)
                try:
                    await producer.publish_many(messages)
                    break
                except BusError as error:
                    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    await asyncio.sleep(_PAUSE)
            accepted.write(ids)
            sent += len(batch)


def main() -> None:
    """Run it as the arguments say; a bus that is away at the start is waited for."""
    url, folder, count, rate, seed = sys.argv[1:]
    while True:
        try:
            return asyncio.run(send(url, Path(folder), int(count), float(rate), seed))
        except BusError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            time.sleep(_PAUSE)


if __name__ == "__main__":
    main()
