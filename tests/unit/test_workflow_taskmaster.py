"""The running workflow taskmaster on a bus in memory, stopped dead between any two of its steps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from bus import Bus, Consumer, Delivery, Message, Producer, connect
from task.codec import decode, encode, encode_done
from task.errors import StateError
from task.task import Task
from taskmasters.clock import SystemClock
from taskmasters.reload import RuleFile
from taskmasters.store import Store, open_store
from taskmasters.store.outbox import OUTBOX
from taskmasters.workflow.book import Book
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.load import load_workflows, read_stored
from taskmasters.workflow.looking import list_runs
from taskmasters.workflow.report import WorkflowReport
from taskmasters.workflow.tables import TABLES
from taskmasters.workflow.taskmaster import WorkflowTaskmaster
from tests.flows import Flow
from tests.helpers import await_until

FILE = """
[[job]]
type = "part"
for_each = "1..5"
task = "{item}"
retry = { count = 1, delay = "0s" }

[[job]]
type = "check"
each = "part"
task = "{job.part.msg}"

[[job]]
type = "all"
depends_on = "check"
task = "{job.check.completed}"
"""
_TYPES = ("part", "check", "all")
_AT = "2026-01-01T00:00:00.000Z"


class Crash(BaseException):
    """The process is gone."""


class Fuse:
    """Burns a step at a time; at the last one the process is gone, and everything it tries afterwards fails too."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Crash


class Fused(Producer):
    """May crash before it publishes, and after."""

    def __init__(self, inner: Producer, fuse: Fuse) -> None:
        self.inner, self.fuse = inner, fuse

    async def publish_many(self, messages: Sequence[Message]) -> None:
        self.fuse.step()
        await self.inner.publish_many(messages)
        self.fuse.step()

    async def close(self) -> None:
        await self.inner.close()


def fuse_store(store: Store, fuse: Fuse) -> None:
    """May crash before a transaction, in its midst, and after it."""
    run = store.run

    async def fused(work: Callable[[Connection], Any]) -> Any:
        def breaking(tx: Connection) -> Any:
            result = work(tx)
            fuse.step()
            return result

        fuse.step()
        result = await run(breaking)
        fuse.step()
        return result

    store.run = fused  # type: ignore[method-assign]


def fuse_consumer(consumer: Consumer, fuse: Fuse) -> None:
    """May crash before it acknowledges."""
    ack = consumer.ack

    async def fused(deliveries: Sequence[Delivery]) -> None:
        fuse.step()
        await ack(deliveries)
        fuse.step()

    consumer.ack = fused  # type: ignore[method-assign]


@asynccontextmanager
async def taskmaster(
    folder: Path, bus: Bus, fuse: Fuse | None = None, clock: SystemClock | None = None
) -> AsyncIterator[WorkflowTaskmaster]:
    """One process: its own store and consumers on a bus that outlives it."""
    store = open_store(str(folder / "state.db"), OUTBOX, TABLES)
    engine = WorkflowEngine(Book(load_workflows(str(folder / "flow.toml")), read_stored), "done")
    store.call(lambda tx: engine.open(tx, 0.0))
    producer = await bus.producer()
    done, requests = await bus.consumer("done", "workflow"), await bus.consumer("requests", "workflow")
    if fuse is not None:
        fuse_store(store, fuse)
        fuse_consumer(done, fuse)
        fuse_consumer(requests, fuse)
        producer = Fused(producer, fuse)
    master = WorkflowTaskmaster(
        engine,
        store,
        producer,
        clock or SystemClock(),
        done=done,
        requests=requests,
        dead_topic=lambda topic: f"{topic}.dead",
        keep=1000.0,
    )
    try:
        yield master
    finally:
        await done.close()
        await requests.close()
        store.close()


class Workers:
    """Does every task as soon as it comes; part 3 fails once."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.done: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    async def run(self) -> None:
        producer = await self.bus.producer()
        await asyncio.gather(*(self._work(kind, producer) for kind in _TYPES), self._watch())

    async def _work(self, kind: str, producer: Producer) -> None:
        consumer = await self.bus.consumer(kind, kind)
        while True:
            for delivery in await consumer.receive(100):
                task = decode(delivery.body)
                self.done[str(task.id)] += 1
                result = "error" if task.value == "3" and task.meta["attempt"] == "1" else "complete"
                await producer.publish("done", encode_done(task, result, f"did {task.value}", _AT, _AT))
                await consumer.ack([delivery])

    async def _watch(self) -> None:
        consumer = await self.bus.consumer("done", "watch")
        while True:
            for delivery in await consumer.receive(100):
                task = decode(delivery.body)
                if task.type == "flow":
                    self.ends[f"{task.id} {task.result}"] += 1
                await consumer.ack([delivery])


@pytest.mark.slow
@pytest.mark.no_faults("it ends the process at every step: with the pauses after faults that takes minutes")
def test_crash_between_any_two_steps(tmp_path: Path) -> None:
    """Whatever was the last thing it did, the next process goes on: the same ids, and the run completes once."""
    (tmp_path / "flow.toml").write_text(FILE)
    flow = Flow(tmp_path, FILE)
    flow.request()
    flow.finish()
    expected = {str(task.id) for task in flow.all}

    async def crashed_at(step: int, folder: Path) -> bool:
        """Whether the run was still going on when the fuse had burnt."""
        await asyncio.to_thread(_write, folder)
        async with connect(f"memory:{uuid4().hex}") as bus:
            await (await bus.producer()).publish("requests", encode(Task("flow", id="request")))
            workers = Workers(bus)
            working = asyncio.create_task(workers.run())
            try:
                fuse = Fuse(step)
                async with taskmaster(folder, bus, fuse) as master:
                    running = asyncio.ensure_future(_until_crash(master))
                    await await_until(lambda: running.done() or workers.ends)
                    early = running.done()
                    running.cancel()
                    await asyncio.gather(running, return_exceptions=True)
                async with taskmaster(folder, bus) as master:
                    running = asyncio.ensure_future(_until_crash(master))
                    await await_until(lambda: workers.ends)
                    master.stop()
                    await running
                assert set(workers.done) == expected, f"crashed at step {step}"
                assert set(workers.ends) == {"request complete"}
                return early
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    async def main() -> None:
        step = 1
        while await crashed_at(step, tmp_path / str(step)):
            step += 1
        assert step > 20, "there are more steps than that in a run"

    asyncio.run(main())


def _write(folder: Path) -> None:
    folder.mkdir()
    (folder / "flow.toml").write_text(FILE)


async def _until_crash(master: WorkflowTaskmaster) -> None:
    try:
        await master.run()
    except Crash:
        return


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.no_faults("it counts what was published")
def test_it_runs_and_tells(tmp_path: Path, instances: int) -> None:
    """One instance, or two on one state, bring runs to their end and tell what they did."""
    (tmp_path / "flow.toml").write_text(FILE)

    async def main() -> None:
        async with connect(f"memory:{uuid4().hex}") as bus:
            workers = Workers(bus)
            working = asyncio.create_task(workers.run())
            async with taskmaster(tmp_path, bus) as one, taskmaster(tmp_path, bus) as two:
                masters = [one, two][:instances]
                running = [asyncio.ensure_future(master.run()) for master in masters]
                producer = await bus.producer()
                requests = [encode(Task("flow", id=f"r{number}")) for number in range(20)]
                await producer.publish_many([Message("requests", body) for body in (*requests, requests[0], b"no")])
                await await_until(lambda: len(workers.ends) == 20)
                await await_until(lambda: sum(m.done.stats.results["completed"] for m in masters) == 20 * 11)
                # What was published counts as sent once that is marked.
                await await_until(lambda: sum(m.relay.sent for m in masters) >= 220 + 20 + 20)
                report = WorkflowReport(one, RuleFile(str(tmp_path / "flow.toml"), load_workflows), {"state": "here"})
                told = report.statistics()
                await await_until(lambda: report.ready() == (True, "ok"))
                for master in masters:
                    master.stop()
                await asyncio.gather(*running)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            assert len(workers.done) == 20 * 11
            assert len(await bus.peek("requests.dead")) == 1
            if instances == 1:
                results = told["results"]
                assert isinstance(results, dict)
                # The ends of its own runs come back to it; how many have so far does not matter.
                assert {name: count for name, count in results.items() if count and name != "unmatched"} == {
                    "completed": 220,
                    "retried": 20,
                    "started": 20,
                    "repeated": 1,
                    "dead": 1,
                }
                assert told["sent"] == 220 + 20 + 20
                names = {metric.name for metric in report.metrics()}
                assert {"taskbus_done_total", "taskbus_tasks_made_total", "taskbus_ready"} <= names

    asyncio.run(main())


def test_a_state_that_fails_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble is told while the state refuses; then the run goes on as if nothing had been."""
    (tmp_path / "flow.toml").write_text(FILE)

    async def main() -> None:
        async with connect(f"memory:{uuid4().hex}") as bus, taskmaster(tmp_path, bus) as master:
            store = master._store
            run = store.run
            failing = True

            async def flaky(work: Callable[[Connection], Any]) -> Any:
                if failing:
                    raise StateError("no room", transient=True)
                return await run(work)

            monkeypatch.setattr(store, "run", flaky)
            workers = Workers(bus)
            working = asyncio.create_task(workers.run())
            running = asyncio.create_task(master.run())
            await (await bus.producer()).publish("requests", encode(Task("flow", id="r")))
            await await_until(lambda: len(master.trouble) and all(inbox.stats.received for inbox in master.inboxes[1:]))
            assert master.trouble == "no room"
            assert WorkflowReport(master, RuleFile(str(tmp_path / "flow.toml"), load_workflows), {}).ready() == (
                False,
                "no room",
            )
            failing = False
            await await_until(lambda: workers.ends)
            await await_until(lambda: not master.trouble)
            master.stop()
            await running
            (shown,) = store.call(lambda tx: list_runs(tx, None, [], 5))
            assert shown["state"] == "Completed"
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    asyncio.run(main())


def test_a_state_that_cannot_be_mended_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no repetition mends is raised, and nothing keeps running."""
    (tmp_path / "flow.toml").write_text(FILE)

    async def main() -> None:
        async with connect(f"memory:{uuid4().hex}") as bus, taskmaster(tmp_path, bus) as master:

            async def broken(work: Callable[[Connection], Any]) -> Any:
                raise StateError("file is not a database")

            monkeypatch.setattr(master._store, "run", broken)
            with pytest.raises(StateError, match="not a database"):
                await master.run()

    asyncio.run(main())


def test_a_changed_folder_is_taken_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right change of any file is taken for new runs; a wrong one is told and the old workflows go on."""
    monkeypatch.setattr(RuleFile, "interval", 0.01)
    flows = tmp_path / "flows"
    (flows / "more").mkdir(parents=True)
    (tmp_path / "flow.toml").write_text(FILE)
    inner = flows / "more" / "b.toml"
    inner.write_text('[[job]]\ntype = "old"\n')

    async def main() -> None:
        file = RuleFile(str(flows), load_workflows)
        async with connect(f"memory:{uuid4().hex}") as bus, taskmaster(tmp_path, bus) as master:
            master.use(Book(file.rules, read_stored))
            running = asyncio.create_task(master.run())
            producer = await bus.producer()

            async def ask(id: str, topic: str) -> None:
                await producer.publish("requests", encode(Task("b", id=id)))
                async with asyncio.timeout(10):
                    while not await bus.peek(topic):  # noqa: ASYNC110 - nothing tells that a task has come
                        await asyncio.sleep(0.005)

            async with file.watched(lambda rules: master.use(Book(rules, read_stored))):
                await await_until(lambda: master._next is None)
                await ask("1", "old")
                inner.write_text('[[job]]\ntype = "new"\ntaks = "x"\n')
                await await_until(lambda: "did you mean 'task'" in file.trouble)
                inner.write_text('[[job]]\ntype = "new"\ntask = "x"\n')
                await await_until(lambda: file.reloads == 1 and master._next is None)
                await ask("2", "new")
                assert file.trouble == ""
            master.stop()
            await running

    asyncio.run(main())
