"""Ours, as the peers are measured: a worker in a thread, on the bus of the URL."""

from __future__ import annotations

import asyncio
import sys

import bus
from benchmarks.peers.command import send
from benchmarks.peers.tally import begun
from task import Context, Outcome, Task, Worker, complete, encode, run


class Noop(Worker):
    """Does nothing."""

    type = "noop"

    def do_task(self, ctx: Context) -> Outcome:
        """Count it."""
        begun(float(self.task.value))
        return complete()


def send_all(where: str) -> None:
    """Send what the command line says."""

    async def run() -> None:
        async with bus.connect(where) as connection, await connection.producer() as producer:
            await send(lambda sent: producer.publish("noop", encode(Task("noop", repr(sent)))))

    asyncio.run(run())


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "send":
        sys.argv[1:] = rest
        send_all(where)
    else:
        run(Noop, argv=["--bus", where, "--log-level", "warning", *rest])
