"""What simulate says is what the taskmasters do: the same rules, run by these on a bus with a clock from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from bus import Bus, Message, connect
from task.codec import decode, encode_done
from task.times import format_time
from taskmasters.cron.rules import load_cron_rules
from taskmasters.cron.state import NoState
from taskmasters.cron.taskmaster import CronTaskmaster
from taskmasters.delay.engine import DelayEngine
from taskmasters.on_done.children import Family
from taskmasters.on_done.memory import MEMORY, Memory
from taskmasters.on_done.rules import load_on_done_rules
from taskmasters.on_done.taskmaster import OnDoneTaskmaster
from taskmasters.retry.engine import RetryEngine
from taskmasters.retry.records import RECORDS
from taskmasters.retry.rules import load_retry_rules
from taskmasters.running import Taskmaster
from taskmasters.simulate.results import Results, load_results
from taskmasters.simulate.run import Simulation
from taskmasters.simulate.setup import prepare
from taskmasters.store import Store, open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.stored.taskmaster import StoredTaskmaster
from taskmasters.workflow.book import Book
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.load import load_workflows, read_stored
from taskmasters.workflow.tables import TABLES
from taskmasters.workflow.taskmaster import WorkflowTaskmaster
from tests.helpers import await_until
from tests.simulated import write

START, END = (datetime(2026, 1, day, tzinfo=UTC).timestamp() for day in (1, 2))
FILES = {
    "cron": (
        '[[rule]]\nid = "a"\ncron = "0 */6 * * *"\njitter = "5m"\ntype = "load"\ntask = "s3://b/{hh}"\n'
        '[[rule]]\nid = "b"\ncron = "30 7 * * *"\ntype = "flow"\ntopic = "requests"\n'
        '[[rule]]\nid = "c"\ncron = "0 8 * * *"\ntype = "later"\ntopic = "delay"\nmeta = { run_at = "3h" }\n'
        '[[rule]]\nid = "d"\ncron = "0 */6 * * *"\ntype = "check"\n'
    ),
    "chain": (
        '[[rule]]\nid = "fan"\nmatch = { type = "load" }\ntype = "leaf"\nfor_each = "1..3"\ntask = "{item}"\n'
        '[[rule]]\nid = "both"\nall = [{ type = "load" }, { type = "check" }]\nby = "{meta:cron}"\ntype = "both"\n'
        '[[rule]]\nid = "end"\nmatch = { type = "flow", result = "*" }\ntype = "told"\ntask = "{parent.result}"\n'
    ),
    "retry": '[[rule]]\nid = "r"\nmatch = { type = ["load", "later"] }\nretries = 2\ndelay = "10m"\n',
    "flow": (
        '[[start]]\ncron = "0 1 * * *"\n'
        '[[job]]\ntype = "first"\nretry = { count = 2, delay = "20m" }\n'
        '[[job]]\ntype = "part"\nfor_each = "1..3"\ntask = "{item}"\ndepends_on = "first"\non_failure = "continue"\n'
        '[[job]]\ntype = "last"\ndepends_on = "part"\n'
    ),
    "results": (
        '[[rule]]\nid = "x"\nmatch = { type = ["load", "first"] }\nresult = "error"\nshare = "60%"\nattempts = 2\n'
        'msg = "no"\n'
        '[[rule]]\nid = "y"\nmatch = { type = "later" }\nresult = "error"\n'
        '[[rule]]\nid = "z"\nmatch = { type = "part", value = "2" }\nresult = "alert"\n'
    ),
}
#: Topics whose tasks somebody does, in these files.
WORK = ("load", "later", "check", "leaf", "both", "told", "first", "part", "last")
NOTICES = ("later.dead", "load.dead", "retry-failed", "requests", "delay")
#: Topics and groups of the taskmasters.
GROUPS = (("done", "on-done"), ("done", "retry"), ("done", "workflow"), ("requests", "workflow"), ("delay", "delay"))


class SteppedClock:
    """A clock that stands still until it is set."""

    def __init__(self, start: float) -> None:
        self._now = start
        self._changed = asyncio.Event()

    def now(self) -> float:
        return self._now

    def set(self, moment: float) -> None:
        """Make it that moment, and wake who has waited for it."""
        self._now = moment
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, moment: float) -> None:
        while self._now < moment:
            await self._changed.wait()


class World:
    """The taskmasters and workers on one bus."""

    def __init__(self, folder: Path, bus: Bus, clock: SteppedClock) -> None:
        self._folder = folder
        self._bus = bus
        self._clock = clock
        self._results = Results(load_results(self._path("results")))
        #: What came to topics of work and notices: moment, topic, and the message without what only the bus knows.
        self.came: list[tuple[float, str, str]] = []
        #: How many of these are done, with their done tasks published: no sooner may the clock go on.
        self.dealt_with = 0

    async def masters(self, stack: AsyncExitStack) -> list[Taskmaster]:
        """All of them, each as its application makes it."""
        bus, clock = self._bus, self._clock
        producer = await bus.producer()
        memory = Memory(self._store(stack, MEMORY), "on-done", 0.0)
        retry = RetryEngine(load_retry_rules(self._path("retry")), failed_topic="retry-failed", keep=1e9)
        flows = WorkflowEngine(Book(load_workflows(self._path("flow")), read_stored), "done")
        store = self._store(stack, OUTBOX, TABLES)
        store.call(lambda tx: flows.open(tx, clock.now()))
        return [
            CronTaskmaster(load_cron_rules(self._path("cron")), producer, NoState(), clock),
            OnDoneTaskmaster(
                Family(load_on_done_rules(self._path("chain"))),
                await bus.consumer("done", "on-done"),
                producer,
                group="on-done",
                dead_topic="done.dead",
                atomic=False,
                memory=memory,
                clock=clock,
            ),
            StoredTaskmaster(
                retry,
                self._store(stack, OUTBOX, RECORDS),
                await bus.consumer("done", "retry"),
                producer,
                clock,
                dead_topic="done.dead",
            ),
            StoredTaskmaster(
                DelayEngine("delay", "delay.dead"),
                self._store(stack, OUTBOX),
                await bus.consumer("delay", "delay"),
                producer,
                clock,
                dead_topic="delay.dead",
            ),
            WorkflowTaskmaster(
                flows,
                store,
                producer,
                clock,
                done=await bus.consumer("done", "workflow"),
                requests=await bus.consumer("requests", "workflow"),
                dead_topic=lambda topic: f"{topic}.dead",
                keep=0,
            ),
        ]

    async def watch(self, topic: str) -> None:
        """Note what comes to a topic, and do it if it is work."""
        consumer, producer = await self._bus.consumer(topic, "worker"), await self._bus.producer()
        while True:
            for delivery in await consumer.receive(100):
                now = self._clock.now()
                self.came.append((now, topic, _known(delivery.body)))
                if topic in WORK:
                    task = decode(delivery.body)
                    comes = self._results.of(topic, task)
                    result, msg, meta = self._results.said(comes, task, now)
                    text = format_time(datetime.fromtimestamp(now, UTC))
                    done = encode_done(task, str(result), msg, text, text, meta)
                    await producer.publish_many([Message("done", done)])
                await consumer.ack([delivery])
                self.dealt_with += 1

    async def quiet(self) -> None:
        """Return once the taskmasters have dealt with everything that came to them."""
        for topic, group in GROUPS:
            while (await self._bus.depth(topic, group)).total:  # noqa: ASYNC110 - nothing tells that it is empty
                await asyncio.sleep(0.005)

    def _path(self, name: str) -> str:
        return str(self._folder / f"{name}.toml")

    def _store(self, stack: AsyncExitStack, *schemas: Any) -> Store:
        store = open_store(":memory:", *schemas)
        stack.callback(store.close)
        return store


def _known(body: bytes) -> str:
    """A message, without the id that the bus gave it."""
    return orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS).decode()


async def really(folder: Path, expected: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Set the clock to one moment after the other; what came to the topics."""
    clock = SteppedClock(START - 1)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(f"memory:{uuid4().hex}"))
        world = World(folder, bus, clock)
        masters = await world.masters(stack)
        works: list[Awaitable[None]] = [world.watch(topic) for topic in (*WORK, *NOTICES)]
        running = [asyncio.ensure_future(work) for work in (*works, *(master.run() for master in masters))]
        try:
            count = 0
            for moment, some in groupby(expected, key=lambda each: each[0]):
                count += len(list(some))
                clock.set(moment)
                await await_until(lambda count=count: world.dealt_with >= count, 60)  # type: ignore[misc]
                await world.quiet()
            clock.set(END - 0.001)
            await world.quiet()
            return world.came
        finally:
            for master in masters:
                master.stop()
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def told(files: list[str], results: str) -> list[tuple[float, str, str]]:
    """What simulate tells of topics of work and notices, with the moments as exact as they are."""
    players, comes = prepare(files, results, START)
    simulation = Simulation(players, comes, limit=1000)
    try:
        made = list(simulation.run(END))
    finally:
        simulation.close()
    assert {one.topic for one in made} <= {*WORK, *NOTICES, "done"}
    return [(one.at, one.topic, _known(one.body)) for one in made if one.topic != "done"]


@pytest.mark.no_faults("its clock stands still while what failed waits to be tried again")
def test_the_taskmasters_do_what_simulate_says(tmp_path: Path) -> None:
    """Cron, on-done with a join, workflow, retry and delay: the same messages, byte for byte, at the same moments."""
    expected = told(write(tmp_path, FILES), str(tmp_path / "results.toml"))
    assert {topic for _, topic, _ in expected} >= {*WORK, "later.dead", "retry-failed"}
    assert {topic for _, topic, _ in expected} >= {*WORK, "later.dead", "retry-failed"}

    came = asyncio.run(really(tmp_path, expected))

    assert sorted(came) == sorted(expected)
