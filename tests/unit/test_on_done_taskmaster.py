"""The running on-done taskmaster on a bus in memory: nothing is acknowledged before its children are confirmed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from bus import Bus, Consumer, Message, Producer, UnreachableError, connect
from task.app import invoke
from task.codec import decode
from task.exits import Exit
from task.task import Task
from taskmasters.on_done.app import on_done
from taskmasters.on_done.children import Family
from taskmasters.on_done.report import OnDoneReport
from taskmasters.on_done.rules import load_on_done_rules
from taskmasters.on_done.taskmaster import OnDoneTaskmaster
from taskmasters.reload import RuleFile
from tests.helpers import await_until

RULES = """
[[rule]]
id = "shout-it"
match = { type = "hello" }
type = "shout"
task = "{parent.msg}{meta:more|default:}{meta:more|default:}"

[[rule]]
id = "fan"
match = { type = "fan" }
type = "leaf"
for_each = "1..4"
task = "{item}{meta:more}"
"""


def done(kind: str, id: str, result: str | None = "complete", **meta: str) -> bytes:
    """A done task as a worker posts it."""
    task: dict[str, object] = {"type": kind, "task": "v", "id": id, "msg": f"msg of {id}", "meta": meta}
    return json.dumps(task | ({"result": result} if result else {})).encode()


class Running:
    """A taskmaster at work."""

    def __init__(self, bus: Bus, producer: Producer, consumer: Consumer, master: OnDoneTaskmaster) -> None:
        self.bus, self.producer, self.consumer, self.master = bus, producer, consumer, master

    async def feed(self, *bodies: bytes) -> None:
        """Publish done tasks and wait until all are settled."""
        await self.producer.publish_many([Message("done", body) for body in bodies])
        before = self.master.stats.results.total()
        await await_until(lambda: self.master.stats.results.total() == before + len(bodies))
        assert (await self.bus.depth("done", "on-done")).total == 0

    async def tasks(self, topic: str) -> list[Task]:
        """What is in a topic."""
        return [decode(peeked.body) for peeked in await self.bus.peek(topic, limit=1000)]

    async def letters(self) -> list[dict[str, object]]:
        """The dead letters."""
        return [json.loads(peeked.body) for peeked in await self.bus.peek("done.dead", limit=1000)]


@asynccontextmanager
async def running(
    folder: Path, options: str = "", wrap: Callable[[Producer], Producer] = lambda producer: producer
) -> AsyncIterator[Running]:
    """A taskmaster with RULES on a memory bus of its own; it must end by itself when stopped."""
    path = folder / "rules.toml"
    path.write_text(RULES)
    async with connect(f"memory:{uuid4().hex}{options}") as bus:
        producer, consumer = await bus.producer(), await bus.consumer("done", "on-done")
        master = OnDoneTaskmaster(
            Family(load_on_done_rules(str(path))),
            consumer,
            wrap(await bus.producer()),
            group="on-done",
            dead_topic="done.dead",
            atomic=bus.capabilities.atomic_finish,
        )
        work = asyncio.create_task(master.run())
        try:
            yield Running(bus, producer, consumer, master)
            master.stop()
            async with asyncio.timeout(10):
                await work
        finally:
            work.cancel()


def test_children_of_many(tmp_path: Path) -> None:
    """Every done task gets its children, what matches no rule gets none, and everything is acknowledged."""

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.feed(
                *(done("hello", f"h{n}") for n in range(1200)), done("other", "o"), done("hello", "e", "error")
            )

            shouts = await run.tasks("shout") + []
            assert (await run.bus.depth("shout", "g")).total == 1200
            assert [task.value for task in shouts] == [f"msg of h{n}" for n in range(len(shouts))]
            assert run.master.stats.results == {"chained": 1200, "unmatched": 2}
            assert run.master.sent == 1200

    asyncio.run(main())


def test_a_task_without_result_is_counted(tmp_path: Path) -> None:
    """What is not done makes no children and is no error."""

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.feed(done("hello", "h", None))

            assert run.master.stats.results == {"unfinished": 1}
            assert await run.bus.topics() == ["done"]

    asyncio.run(main())


def test_rubbish_is_kept(tmp_path: Path) -> None:
    """What is no task goes to the dead letters with the reason and its bytes; what follows is done."""

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.feed(b"not json", b"\xff\xfe", done("hello", "h"))

            first, second = await run.letters()
            assert (first["code"], first["body"], first["topic"], first["group"]) == (
                "not-json",
                "not json",
                "done",
                "on-done",
            )
            assert second["body_base64"] == "//4="
            assert len(await run.tasks("shout")) == 1
            assert run.master.stats.results == {"dead": 2, "chained": 1}

    asyncio.run(main())


@pytest.mark.no_faults("a dead letter whose confirmation got lost is published again")
def test_a_rule_that_fails_keeps_the_done_task(tmp_path: Path) -> None:
    """A child that cannot be made makes its parent a dead letter that says which rule and why."""

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.feed(done("fan", "f"), done("fan", "g", more="!"))

            (letter,) = await run.letters()
            assert (letter["code"], letter["id"]) == ("rule-failed", "f")
            assert "rule fan: there is no value for {meta:more}" in str(letter["reason"])
            assert [task.value for task in await run.tasks("leaf")] == ["1!", "2!", "3!", "4!"]

    asyncio.run(main())


def test_a_child_that_is_too_large(tmp_path: Path) -> None:
    """A child the bus does not take makes its parent a dead letter, in parts that fit; others are not held up."""

    async def main() -> None:
        async with running(tmp_path, "?max_size=1400") as run:
            await run.feed(done("hello", "h"), done("hello", "big", more="x" * 1250), done("hello", "i"))

            letters = await run.letters()
            assert {letter["code"] for letter in letters} == {"too-large"}
            assert {letter["id"] for letter in letters} == {"big"}
            assert [task.value for task in await run.tasks("shout")] == ["msg of h", "msg of i"]

    asyncio.run(main())


class Unreliable(Producer):
    """Fails as often as told, sometimes after publishing all the same."""

    def __init__(self, inner: Producer, fails: int) -> None:
        self.inner = inner
        self.fails = fails

    async def publish_many(self, messages: Sequence[Message]) -> None:
        """Publish, or fail, or both."""
        if messages and self.fails:
            self.fails -= 1
            if self.fails % 2:
                await self.inner.publish_many(messages)
            raise UnreachableError("away")
        await self.inner.publish_many(messages)

    async def close(self) -> None:
        """Close what is wrapped."""
        await self.inner.close()


def test_a_bus_that_fails_is_tried_again(tmp_path: Path) -> None:
    """Every child is there after failures in the middle, once by id."""

    async def main() -> None:
        async with running(tmp_path, "?dedupe=0", lambda inner: Unreliable(inner, 5)) as run:
            await run.feed(*(done("hello", f"h{n}") for n in range(50)))

            shouts = [task.id for task in await run.tasks("shout")]
            assert len(set(shouts)) == 50
            assert len(shouts) > 50
            assert run.master.stats.bus_errors == 5
            assert run.master.trouble == ""

    asyncio.run(main())


@pytest.mark.no_faults("an injected fault takes leases away")
def test_nothing_is_acknowledged_while_the_bus_fails(tmp_path: Path) -> None:
    """While children cannot be published their parents stay in flight, past their lease; cut short, they come back."""

    async def main() -> None:
        async with running(tmp_path, "?lease=300ms", lambda inner: Unreliable(inner, 10**9)) as run:
            await run.producer.publish("done", done("hello", "h"))
            await await_until(lambda: run.master.trouble)
            began = asyncio.get_running_loop().time()
            await await_until(lambda: asyncio.get_running_loop().time() > began + 0.7)
            depth = await run.bus.depth("done", "on-done")
            assert (depth.ready, depth.in_flight) == (0, 1)

            await run.consumer.close()
            assert (await run.bus.depth("done", "on-done")).ready == 1
            raise KeyError("cut short")

    with pytest.raises(KeyError, match="cut short"):
        asyncio.run(main())


def test_the_status_page(tmp_path: Path) -> None:
    """The status page counts done tasks by what became of them, and what was sent."""

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.feed(done("hello", "h"), done("fan", "f", more="x"), done("other", "o"), b"rubbish")
            file = RuleFile(str(tmp_path / "rules.toml"), load_on_done_rules)
            report = OnDoneReport(run.master, file, {"topic": "done"})

            said = report.statistics()
            assert (said["received"], said["sent"], said["topic"]) == (4, 5, "done")
            assert said["results"] == {"chained": 2, "unmatched": 1, "dead": 1}
            assert report.healthy() == report.ready() == (True, "ok")
            samples = {(metric.name, metric.labels.get("result")): metric.value for metric in report.metrics()}
            assert samples["taskbus_done_total", "chained"] == 2
            assert samples["taskbus_tasks_made_total", None] == 5

    asyncio.run(main())


def test_other_rules_while_it_runs(tmp_path: Path) -> None:
    """New rules judge the done tasks that come after them."""

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.feed(done("hello", "h1"))
            path = tmp_path / "other.toml"
            path.write_text('[[rule]]\nmatch = { type = "hello" }\ntype = "other"\n')
            run.master.use(Family(load_on_done_rules(str(path))))
            await run.feed(done("hello", "h2"))

            assert [task.meta["parent"] for task in await run.tasks("other")] == ["h2"]

    asyncio.run(main())


def test_the_same_done_task_twice(tmp_path: Path) -> None:
    """A done task that comes twice makes the same children, which a bus that looks at ids takes once."""

    async def main() -> None:
        async with running(tmp_path) as run:
            await run.feed(done("fan", "f", more="x"), done("fan", "f", more="x"))

            assert len(await run.tasks("leaf")) == 4
            assert run.master.stats.results == {"chained": 2}

    asyncio.run(main())


def test_parents_without_id(tmp_path: Path) -> None:
    """Done tasks that came without an id have different children."""

    async def main() -> None:
        async with running(tmp_path) as run:
            body = b'{"type":"hello","task":"v","result":"complete","msg":"m"}'
            await run.feed(body, body)

            assert len({task.id for task in await run.tasks("shout")}) == 2

    asyncio.run(main())


@pytest.fixture
def rules(tmp_path: Path) -> str:
    """The file with RULES."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return str(path)


def test_dry_run(
    rules: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--dry-run prints the children of a file of done tasks, tells what is wrong on stderr, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "done.jsonl"
    source.write_bytes(done("hello", "h") + b"\n\n" + done("fan", "f") + b"\nrubbish\n" + done("fan", "g", more=""))
    before = sorted(path.name for path in tmp_path.iterdir())
    assert invoke(on_done, [rules, "--dry-run", "--in", str(source)]) == Exit.FAILED

    out, err = capfd.readouterr()
    assert [json.loads(line)["task"] for line in out.splitlines()] == ["msg of h", "1", "2", "3", "4"]
    assert "there is no value for {meta:more}" in err
    assert "not JSON" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_from_file_to_file(rules: str, tmp_path: Path) -> None:
    """--in and --out make a filter of it, with the dead letters beside the output."""
    source, target = tmp_path / "done.jsonl", tmp_path / "tasks.jsonl"
    source.write_bytes(done("hello", "h") + b"\nrubbish\n")
    assert invoke(on_done, [rules, "--in", str(source), "--out", str(target)]) == Exit.OK

    assert [json.loads(line)["task"] for line in target.read_text().splitlines()] == ["msg of h"]
    assert json.loads((tmp_path / "tasks.jsonl.dead").read_text())["body"] == "rubbish"


def test_check(rules: str, capfd: pytest.CaptureFixture[str]) -> None:
    """--check explains on stdout."""
    assert invoke(on_done, [rules, "--check"]) == Exit.OK

    out, err = capfd.readouterr()
    assert "→ shout [shout-it]" in out
    assert err == ""


@pytest.mark.parametrize(
    ("more", "args", "said"),
    [
        ("", ["--dry-run"], "--dry-run reads done tasks from --in"),
        ("", ["--dry-run", "--in", "memory:x"], "--dry-run would take the done tasks from memory:x"),
        ("delay = 5\n", ["--in", "/dev/null"], "rule fan has a delay, and stdio: can delay a task by 0 s at most"),
        ("", ["--in", "/dev/null", "--topic", "shout"], "rule shout-it sends to the topic shout, where no worker"),
        ("", ["--in", "/dev/null", "--dead-topic", "leaf"], "rule fan sends to the topic leaf, where no worker"),
        ("colour = 5\n", ["--check"], "rule[1].colour: unknown key"),
        ('[[rule]]\nmatch = { type = "shout" }\ntype = "hello"\n', ["--check"], "come back to it, without end"),
    ],
)
def test_wrong_use(rules: str, capfd: pytest.CaptureFixture[str], more: str, args: list[str], said: str) -> None:
    """What cannot be done gives exit code 2 and a sentence."""
    with open(rules, "a") as file:
        file.write(more)
    assert invoke(on_done, [rules, *args]) == Exit.USAGE

    out, err = capfd.readouterr()
    assert out == ""
    assert said in err
