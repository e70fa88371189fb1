"""A worker application on an in-memory bus, for the tests of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

import bus
from bus import Bus, Consumer, Delivery
from task import Context, Launch, Outcome, Task, Worker, complete, encode
from task.exits import Exit
from task.options import WorkerOptions
from task.worker_app import WorkerApp

_names = itertools.count()


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Poll until ``condition`` holds; TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  (there is no event to wait for)
            await asyncio.sleep(0.005)


class Rig:
    """One named memory bus, one application, and what came out of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bus: Bus = bus.connect(url)
        self._consumers: dict[str, Consumer] = {}

    async def send(self, *tasks: Task | bytes, topic: str = "t", delay: float = 0.0) -> None:
        producer = await self.bus.producer()
        for task in tasks:
            await producer.publish(topic, task if isinstance(task, bytes) else encode(task), delay=delay)
        await producer.close()

    async def take(self, count: int, topic: str = "done") -> list[dict[str, Any]]:
        """The next ``count`` messages of ``topic``, acknowledged."""
        if topic not in self._consumers:
            self._consumers[topic] = await self.bus.consumer(topic, "test")
        consumer = self._consumers[topic]
        found: list[Delivery] = []
        async with asyncio.timeout(20):
            while len(found) < count:
                batch = await consumer.receive(count - len(found))
                await consumer.ack(batch)
                found += batch
        return [orjson.loads(delivery.body) for delivery in found]

    async def nothing(self, topic: str) -> bool:
        """Whether nothing more is waiting on ``topic``."""
        return (await self.bus.depth(topic, "test")).total == 0

    def app(self, launch: Launch, **options: Any) -> WorkerApp:
        return WorkerApp(launch, WorkerOptions(**{"bus": self.url, "topic": "t", "kill_time": 2.0, **options}))

    @contextlib.asynccontextmanager
    async def running(self, launch: Launch, **options: Any) -> AsyncIterator[WorkerApp]:
        """The application, working until the block ends."""
        app = self.app(launch, **options)
        work = asyncio.create_task(app.run())
        try:
            yield app
        finally:
            if not app.stopping:
                app.stop()
            async with asyncio.timeout(20):
                self.exit: Exit = await work

    async def until(self, *, group: str = "t", **depth: int) -> None:
        """Wait until the depth of the application's topic is as given."""

        async def reached() -> bool:
            found = await self.bus.depth("t", group)
            return all(getattr(found, key) == value for key, value in depth.items())

        await eventually(reached)

    async def idle(self, group: str = "t") -> None:
        """Wait until the application has settled everything."""
        await self.until(group=group, total=0)


@contextlib.asynccontextmanager
async def rig(options: str = "") -> AsyncIterator[Rig]:
    made = Rig(f"memory:engine-{next(_names)}{options}")
    async with made.bus:
        yield made


def worker(do: Callable[[Task, Context], Any], kind: str = "t") -> type[Worker]:
    """A worker class around one function."""

    class Made(Worker):
        type = kind

        def do_task(self, ctx: Context) -> Outcome:
            outcome = do(self.task, ctx)
            return complete() if outcome is None else outcome

    return Made
