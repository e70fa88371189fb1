"""Rules that wait for several done tasks, and done tasks that come twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from bus import Bus, Message, Producer, connect
from task.codec import decode
from task.errors import SettingsError
from task.task import Task
from taskmasters.clock import VirtualClock
from taskmasters.on_done.children import Family
from taskmasters.on_done.memory import MEMORY, Memory
from taskmasters.on_done.rules import load_on_done_rules
from taskmasters.on_done.taskmaster import OnDoneTaskmaster
from taskmasters.store import open_store
from tests.helpers import await_until
from tests.unit.test_on_done_taskmaster import done

RULES = """
[[rule]]
id = "merge"
all = [ { type = "left" }, { type = "right", result = ["complete", "warn"] } ]
by = "{meta:day}"
within = "1h"
type = "merge"
task = "{meta:day}/{parent.id}"

[[rule]]
id = "left"
match = { type = "left" }
type = "next"
"""


class Running:
    """A taskmaster at work, and its clock."""

    def __init__(self, bus: Bus, producer: Producer, master: OnDoneTaskmaster, clock: VirtualClock) -> None:
        self.bus, self.producer, self.master, self.clock = bus, producer, master, clock

    async def feed(self, *bodies: bytes) -> None:
        """Publish done tasks and wait until all are settled."""
        before = self.master.stats.results.total()
        await self.producer.publish_many([Message("done", body) for body in bodies])
        await await_until(lambda: self.master.stats.results.total() == before + len(bodies))

    async def tasks(self, topic: str) -> list[Task]:
        """What is in a topic."""
        return [decode(peeked.body) for peeked in await self.bus.peek(topic, limit=1000)]


@asynccontextmanager
async def running(folder: Path, state: str = ":memory:", window: float = 0.0) -> AsyncIterator[Running]:
    """A taskmaster with RULES on a memory bus that does not look at ids."""
    path = folder / "rules.toml"
    path.write_text(RULES)
    clock = VirtualClock(1_000_000.0)
    store = open_store(state, MEMORY)
    async with connect(f"memory:{uuid4().hex}?dedupe=0s") as bus:
        producer = await bus.producer()
        master = OnDoneTaskmaster(
            Family(load_on_done_rules(str(path))),
            await bus.consumer("done", "on-done"),
            await bus.producer(),
            group="on-done",
            dead_topic="done.dead",
            atomic=bus.capabilities.atomic_finish,
            memory=Memory(store, "on-done", window),
            clock=clock,
        )
        work = asyncio.create_task(master.run())
        try:
            yield Running(bus, producer, master, clock)
            master.stop()
            async with asyncio.timeout(10):
                await work
        finally:
            work.cancel()
            store.close()


def test_all_must_have_come(tmp_path: Path, state_url: str) -> None:
    """A child is made when the last of them comes, in whatever order; the first that the rule names is its parent."""

    async def main() -> None:
        async with running(tmp_path, state_url) as run:
            await run.feed(done("right", "r1", day="1"), done("left", "l2", day="2"))
            assert await run.tasks("merge") == []
            await run.feed(done("left", "l1", day="1"), done("right", "r2", "error", day="2"))
            (task,) = await run.tasks("merge")
            assert task.value == "1/l1"
            assert {key: task.meta[key] for key in ("parent", "root", "parents")} == {
                "parent": "l1",
                "root": "l1",
                "parents": "l1,r1",
            }
            await run.feed(done("right", "r3", "warn", day="2"))
            assert [task.value for task in await run.tasks("merge")] == ["1/l1", "2/l2"]
            assert len(await run.tasks("next")) == 2
            assert run.master.stats.results == {"waiting": 1, "chained": 3, "unmatched": 1}

    asyncio.run(main())


def test_once_however_often_they_come(tmp_path: Path) -> None:
    """Done tasks that come again, before and after the others, make no second child of the join."""

    async def main() -> None:
        async with running(tmp_path) as run:
            left, right = done("left", "l", day="1"), done("right", "r", day="1")
            for body in (left, left, right, right, left, done("right", "another", day="1")):
                await run.feed(body)

            assert [task.value for task in await run.tasks("merge")] == ["1/l"]

    asyncio.run(main())


def test_a_join_waits_no_longer_than_it_says(tmp_path: Path) -> None:
    """What is not complete in time is given up, told and counted; what comes later begins anew."""

    async def main(state: str) -> None:
        async with running(tmp_path, state) as run:
            await run.feed(done("left", "l", day="1"))
        async with running(tmp_path, state) as run:
            run.clock.set(run.clock.now() + 3601)
            rules = {rule.id: rule for rule in load_on_done_rules(str(tmp_path / "rules.toml"))}
            memory = run.master._memory
            assert memory is not None
            assert await memory.forget(rules, run.clock.now()) == [("merge", "1")]
            await run.feed(done("right", "r", day="1"))
            assert await run.tasks("merge") == []
            await run.feed(done("left", "l", day="1"))
            assert len(await run.tasks("merge")) == 1

    asyncio.run(main(str(tmp_path / "state.db")))


def test_repeated_done_tasks_are_known(tmp_path: Path) -> None:
    """With a window a done task that comes again makes nothing, also after a restart; later it does again."""

    async def main(state: str) -> None:
        async with running(tmp_path, state, 60.0) as run:
            await run.feed(done("left", "l", day="1"))
            await run.feed(done("left", "l", day="1"))
            assert len(await run.tasks("next")) == 1
            assert run.master.stats.results["repeated"] == 1
        async with running(tmp_path, state, 60.0) as run:
            await run.feed(done("left", "l", day="1"))
            assert await run.tasks("next") == []
            run.clock.set(run.clock.now() + 61)
            await run.feed(done("left", "l", day="1"))
            assert len(await run.tasks("next")) == 1

    asyncio.run(main(str(tmp_path / "state.db")))


@pytest.mark.parametrize("seed", range(3))
def test_any_order_makes_the_same(tmp_path: Path, seed: int) -> None:
    """However the done tasks of many days come, restarts and repetitions included, each day is merged once."""
    dice = random.Random(seed)
    bodies = [done(kind, f"{kind}{day}", day=str(day)) for kind in ("left", "right") for day in range(30)]
    bodies += dice.sample(bodies, 20)
    dice.shuffle(bodies)

    async def main() -> None:
        found: list[Task] = []
        for start in range(0, len(bodies), 16):
            async with running(tmp_path, str(tmp_path / "state.db")) as run:
                await run.feed(*bodies[start : start + 16])
                found += await run.tasks("merge")
        assert sorted(task.value for task in found) == sorted(f"{day}/left{day}" for day in range(30))

    asyncio.run(main())


def test_a_missing_key_is_a_dead_letter(tmp_path: Path) -> None:
    """A done task that lacks what tells where it belongs is kept as a dead letter; other rules work on it."""

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.feed(done("left", "l"))
            (letter,) = await run.bus.peek("done.dead")
            assert "rule merge: there is no value for {meta:day}" in json.loads(letter.body)["reason"]
            assert len(await run.tasks("next")) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('all = [ { type = "a" } ]\nby = "{meta:x}"', "must name 2 to 20 kinds of done tasks"),
        ('all = [ { type = "a" }, { type = "c" } ]', "the rule has no 'by'"),
        ('all = [ { type = "a" }, { type = "c" } ]\nby = "x"', "is the same for all done tasks"),
        ('all = [ { tpye = "a" }, { type = "c" } ]\nby = "{meta:x}"', "all[0].tpye: unknown key; did you mean 'type'"),
        ('all = [ { type = "a" }, { type = "c" } ]\nby = "{meta:x}"\nmatch = { type = "a" }', "stands beside all"),
        ('match = { type = "a" }\nby = "{meta:x}"', "means nothing without all"),
        ('all = [ { type = "a" }, { type = "b" } ]\nby = "{meta:x}"', "can come back to it, without end"),
        ('all = "a"\nby = "{meta:x}"', "must be a list of tables"),
    ],
)
def test_wrong_rules(tmp_path: Path, text: str, said: str) -> None:
    """Mistakes are told with their place."""
    path = tmp_path / "rules.toml"
    path.write_text(f'[[rule]]\n{text}\ntype = "b"\n')
    with pytest.raises(SettingsError) as caught:
        load_on_done_rules(str(path))
    assert said in str(caught.value)
