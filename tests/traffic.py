"""Tasks of type ``noted`` that come without pause while servers are stopped, killed and started, and who does them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import Popen

import bus
from bus import BusError, Message
from task import Task, encode
from tests.helpers import await_until
from tests.kills import start_worker

__all__ = ["BATCH", "Publisher", "publishing", "working"]

#: Tasks of one publish.
BATCH = 20


class Publisher:
    """Publishes without pause, and again whatever was not confirmed. Ids begin with its ``name``."""

    def __init__(self, name: str = "") -> None:
        #: Ids whose publish was confirmed.
        self.accepted: set[str] = set()
        self.refusals: list[BusError] = []
        self._name = name

    async def run(self, url: str) -> None:
        """Publish until cancelled. Raises what publishing again does not mend."""
        number = 0
        async with bus.connect(url) as b, await b.producer() as producer:
            while True:
                ids = [f"{self._name}{number + n:07d}" for n in range(BATCH)]
                try:
                    await producer.publish_many([Message("noted", encode(Task("noted", id=id))) for id in ids])
                except BusError as error:
                    if not error.transient:
                        raise
                    self.refusals.append(error)
                    await asyncio.sleep(0.02)
                    continue
                self.accepted.update(ids)
                number += BATCH
                await asyncio.sleep(0.005)

    async def grow(self, by: int = 200) -> None:
        """Wait until that many more are accepted."""
        goal = len(self.accepted) + by
        await await_until(lambda: len(self.accepted) >= goal, 30)


@asynccontextmanager
async def publishing(url: str, name: str = "") -> AsyncIterator[Publisher]:
    """Inside, tasks are published."""
    publisher = Publisher(name)
    task = asyncio.create_task(publisher.run(url))
    try:
        yield publisher
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait({task})


@contextmanager
def working(folder: Path, url: str) -> Iterator[Popen[str]]:
    """Inside, a process does them, and notes it in ``folder``."""
    worker = start_worker(folder, url)
    try:
        yield worker
    finally:
        worker.terminate()
        _, err = worker.communicate(timeout=60)
        assert "Traceback" not in err, err
