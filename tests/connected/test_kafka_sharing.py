"""Worker processes of one group that share a topic of Kafka, without faults: each task is done once.

One test for each protocol of the group.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import Popen

import orjson
import pytest

pytest.importorskip("confluent_kafka")

import bus
from bus import Message
from task import Task, encode
from tests.helpers import await_until
from tests.kills import executed, start_worker
from tests.servers.kafka import KafkaServer

_TASKS = 20_000
#: Tasks of one publish, and how many may wait.
_BATCH, _AHEAD = 500, 3000
#: Bytes of an id in a ledger.
_LINE = 7
_PATIENCE = 90
#: Seconds a task takes where others are to join and leave meanwhile.
_PAUSE = 0.0002


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker, which every test leaves running."""
    with KafkaServer(tmp_path_factory.mktemp("kafka")).running() as server:
        yield server


class _Flow:
    """Tasks of type ``noted`` on a topic of its own with eight partitions, and two folders of workers that do them."""

    def __init__(self, url: str, topic: str, folder: Path) -> None:
        self.url = url
        self._topic = topic
        self._folders = [folder / "one", folder / "two"]
        self.published = 0

    @contextmanager
    def worker(self, number: int, pause: float) -> Iterator[Popen[str]]:
        """One process, told to end at the end: which it does in order."""
        folder = self._folders[number]
        folder.mkdir()
        names = ("--topic", self._topic, "--group", "workers", "--done-topic", f"{self._topic}-done")
        worker = start_worker(folder, self.url, *names, pause=pause)
        try:
            yield worker
        finally:
            worker.terminate()
            _, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
        assert "Traceback" not in err, err

    def done(self, number: int) -> int:
        """How many the process has done. The size of what it notes costs less to ask for than to read."""
        ledger = self._folders[number] / "ledger"
        return ledger.stat().st_size // _LINE if ledger.exists() else 0

    async def publish(self, count: int) -> None:
        """Publish so many more."""
        async with bus.connect(self.url) as b, await b.producer() as producer:
            ids = [f"{number:06d}" for number in range(self.published, self.published + count)]
            await producer.publish_many([Message(self._topic, encode(Task("noted", id=id))) for id in ids])
        self.published += count

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Inside, tasks come without end, and some always wait."""
        over = False

        async def publish() -> None:
            while not over:
                await await_until(lambda: over or self.published - self.done(0) - self.done(1) < _AHEAD, _PATIENCE)
                await self.publish(_BATCH)

        # Not to be cancelled: whether its last tasks were published would not be known.
        async with asyncio.TaskGroup() as group:
            group.create_task(publish())
            try:
                yield
            finally:
                over = True

    async def finished(self) -> None:
        """Return when all were done."""
        await await_until(lambda: self.done(0) + self.done(1) >= self.published, _PATIENCE)

    def verify(self) -> None:
        """Each was done once, by one of the two, and reported once; both have done some; nothing is left."""
        ids = dict.fromkeys((f"{number:06d}" for number in range(self.published)), 1)
        one, two = map(executed, self._folders)
        print(f"{one.total()} and {two.total()}")
        assert one
        assert two
        assert [id for id, times in (one + two).items() if times > 1] == []
        assert one + two == ids
        reported, waiting = asyncio.run(self._outcome())
        assert reported == ids
        assert waiting == 0

    async def _outcome(self) -> tuple[Counter[str], int]:
        """How often each was reported, and how many wait."""
        found: Counter[str] = Counter()
        async with bus.connect(self.url) as b, await b.consumer(f"{self._topic}-done", "count") as consumer:
            while batch := await consumer.receive(1000, timeout=20.0 if found.total() < self.published else 1.0):
                found.update(orjson.loads(delivery.body)["id"] for delivery in batch)
                await consumer.ack(batch)
            return found, (await b.depth(self._topic, "workers")).total


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_workers_share_without_a_duplicate(server: KafkaServer, tmp_path: Path) -> None:
    """20,000 tasks and two worker processes: each is done once, and both have done some."""
    flow = _Flow(f"{server.url}?partitions=8&protocol=consumer", "shared", tmp_path)

    async def run() -> None:
        while not (flow.done(0) and flow.done(1)):  # not before both have their partitions
            await flow.publish(100)
            await flow.finished()
        await flow.publish(_TASKS - flow.published)
        await flow.finished()

    with flow.worker(0, 0.0), flow.worker(1, 0.0):
        asyncio.run(run())
    assert min(flow.done(0), flow.done(1)) > _TASKS // 10
    flow.verify()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_worker_joins_and_one_leaves_under_traffic(server: KafkaServer, tmp_path: Path) -> None:
    """The second process joins while the first works, and the first is ended while both do: each task is done once."""
    flow = _Flow(f"{server.url}?partitions=8&protocol=classic", "moving", tmp_path)

    async def until(number: int, count: int) -> None:
        goal = flow.done(number) + count
        await await_until(lambda: flow.done(number) >= goal, _PATIENCE)

    async def run() -> None:
        with ExitStack() as second:
            async with flow.traffic():
                with flow.worker(0, _PAUSE):
                    await until(0, 500)
                    await asyncio.to_thread(second.enter_context, flow.worker(1, _PAUSE))
                    await until(1, 500)
                    await until(0, 500)
                await until(1, 500)
            await flow.finished()

    asyncio.run(run())
    flow.verify()
