"""How users write against the public API. Type-checked by mypy and pyright, never run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import bus
from task import Context, Launch, Outcome, Reject, RetryLater, Task, Worker, complete, error, run, worker
from task.testing import do_task, outcome_of


class Sync(Worker):
    type = "sync"

    def do_task(self, ctx: Context) -> Outcome:
        if ctx.cancelled or ctx.wait(0.1):
            raise RetryLater("5m", "interrupted")
        ctx.log.info("at work", extra={"step": 1})
        ctx.progress(0.5, "half way")
        ctx.meta["rows"] = "12"
        remaining: float | None = ctx.remaining
        return complete(f"{self.task.value} {remaining}", rows="12")


class Async(Worker):
    type = "async"

    async def do_task(self, ctx: Context) -> Outcome:
        if not self.task.value:
            raise Reject("no value")
        return error("no")


@dataclass
class Database:
    url: str


class Injected(Worker):
    def __init__(self, task: Task, database: Database) -> None:
        super().__init__(task)
        self.database = database

    def do_task(self, ctx: Context) -> Outcome:
        return complete(self.database.url)


def launch(task: Task) -> Worker:
    return Injected(task, Database("sqlite:"))


@worker("resize")
def resize(origin: str, width: int = 100, *, ctx: Context) -> str:
    return f"{origin} {width} {ctx.attempt}"


@dataclass
class Params:
    origin: str
    hour: datetime
    dry_run: bool = False


def params(task: Task) -> datetime:
    return task.params(Params).hour


def launches() -> list[Launch]:
    return [Sync, Async, launch]


def programs() -> None:
    run(Sync)
    run(launch, type="injected")


def tests() -> None:
    done: Task = do_task(Sync, "value", meta={"k": "v"})
    outcome: Outcome | None = outcome_of(Async, Task("async", "v", job="j"))
    created: datetime | None = done.replace(value="w").created
    print(done.result, outcome, created)


async def buses() -> None:
    async with bus.connect("sqlite:work.db") as b, await b.producer() as producer:
        await producer.publish("t", b"{}", delay=1.0)
        await producer.publish_many([bus.Message("t", b"{}", key="k")])
        async with await b.consumer("t", "g") as consumer:
            deliveries: list[bus.Delivery] = await consumer.receive(10, timeout=1.0)
            await consumer.finish(deliveries, [bus.Message("u", b"{}")], producer)
            depth: bus.Depth = await b.depth("t", "g")
            print(depth.total, b.capabilities.durability >= bus.Durability.D2)
