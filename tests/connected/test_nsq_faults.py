"""NSQ servers stopped, killed and restarted under traffic, and workers that share a topic."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import Popen

import pytest

import bus
from bus import Message
from task import Task, encode
from tests.helpers import await_until
from tests.kills import done_tasks, executed, start_worker
from tests.servers.nsq import Lookupd, Nsqd
from tests.traffic import BATCH, publishing, working


def _cpu(pid: int) -> float:
    """Seconds of CPU a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.timeout(180)
def test_clean_restarts_lose_nothing(nsqd: Nsqd, tmp_path: Path) -> None:
    """nsqd stopped and started under traffic: all that was accepted is done and reported, and nobody is restarted."""
    url = nsqd.url()

    async def run() -> None:
        async with publishing(url) as publisher:
            for _ in range(3):
                await publisher.grow()
                await asyncio.to_thread(nsqd.stop)
                refused = len(publisher.refusals)
                await await_until(lambda seen=refused: len(publisher.refusals) > seen, 20)  # type: ignore[misc]
                await asyncio.to_thread(nsqd.start)
            await publisher.grow()
        await await_until(lambda: publisher.accepted <= executed(tmp_path).keys(), 60)
        reported = set[str]()
        async with asyncio.timeout(60):
            while not publisher.accepted <= reported:
                reported |= (await done_tasks(url)).keys()

    with working(tmp_path, url):
        asyncio.run(run())


@pytest.mark.timeout(180)
def test_a_killed_nsqd_loses_what_it_had_in_memory(nsqd: Nsqd, tmp_path: Path) -> None:
    """After ``kill -9`` no more is missing than was accepted and not done by then, and what comes later is done."""
    url = nsqd.url()

    async def run() -> None:
        pending = 0
        async with publishing(url) as publisher:
            for _ in range(3):
                await publisher.grow()
                await asyncio.to_thread(nsqd.kill_and_start)
                pending += len(publisher.accepted - executed(tmp_path).keys())
                before = set(publisher.accepted)
                await publisher.grow()
        last = publisher.accepted - before
        # The first batch may have been on its way when nsqd was killed.
        await await_until(lambda: len(last - executed(tmp_path).keys()) <= BATCH, 60)
        lost = publisher.accepted - executed(tmp_path).keys()
        print(f"{len(publisher.accepted)} accepted, 3 kills, {len(lost)} lost of {pending} in memory")
        assert len(lost) <= pending + BATCH

    with working(tmp_path, url):
        asyncio.run(run())


@pytest.mark.timeout(180)
def test_with_two_publishing_goes_on_while_one_is_dead(tmp_path: Path) -> None:
    """While one of two nsqds is dead every publish is confirmed by the other; back again, it is used again."""
    pair = [Nsqd(tmp_path), Nsqd(tmp_path)]
    for server in pair:
        server.start()
    hosts = ",".join(f"127.0.0.1:{server.tcp}" for server in pair)
    http = ",".join(f"127.0.0.1:{server.http}" for server in pair)
    url = f"nsq://{hosts}?http={http}"

    async def run(worker: Popen[str]) -> None:
        async with publishing(url) as publisher:
            await publisher.grow()
            await asyncio.to_thread(pair[0].stop)
            assert not publisher.refusals
            cpu, began, before = _cpu(worker.pid), time.monotonic(), len(executed(tmp_path))
            await publisher.grow(2000)
            await await_until(lambda: len(executed(tmp_path)) > before + 1500, 60)
            spent = (_cpu(worker.pid) - cpu) / (time.monotonic() - began)
            assert not publisher.refusals
            assert spent < 0.9, f"{spent:.0%} of a CPU while one nsqd is away"
            await asyncio.to_thread(pair[0].start)
            async with bus.connect(pair[0].url()) as b, await b.consumer("noted", None) as listener:
                assert await listener.receive(timeout=30)
            assert not publisher.refusals
        await await_until(lambda: publisher.accepted <= executed(tmp_path).keys(), 60)

    try:
        with working(tmp_path, url) as worker:
            asyncio.run(run(worker))
    finally:
        for server in pair:
            server.stop()


@pytest.mark.timeout(120)
def test_while_nothing_answers_nobody_spins(nsqd: Nsqd, tmp_path: Path) -> None:
    """A worker whose nsqd is away uses next to no CPU, and works when it is back."""

    async def run(worker: Popen[str]) -> None:
        await asyncio.to_thread(nsqd.stop)
        cpu, until = _cpu(worker.pid), time.monotonic() + 4.0
        await await_until(lambda: time.monotonic() > until)
        spent = _cpu(worker.pid) - cpu
        assert spent < 1.0, f"{spent:g} s of CPU in 4 s"
        await asyncio.to_thread(nsqd.start)
        async with bus.connect(nsqd.url()) as b, await b.producer() as producer:
            await producer.publish("noted", encode(Task("noted", id="late")))
        await await_until(lambda: "late" in executed(tmp_path), 30)

    with working(tmp_path, nsqd.url()) as worker:
        asyncio.run(run(worker))


@pytest.mark.timeout(120)
def test_nodes_leave_and_come_back(tmp_path: Path) -> None:
    """Through nsqlookupd: one nsqd stops, others go on; at the same address again it is used again."""
    lookupd = Lookupd(tmp_path)
    lookupd.start()
    servers = [Nsqd(tmp_path, f"-lookupd-tcp-address=127.0.0.1:{lookupd.tcp}") for _ in range(2)]
    for nsqd in servers:
        nsqd.start()
    url = f"nsq:?lookupd=http://127.0.0.1:{lookupd.http}&poll=200ms"

    async def nodes() -> int:
        async with bus.connect(url) as b:
            return len(await b._nodes.all())  # type: ignore[attr-defined]

    async def until_nodes(count: int) -> None:
        async with asyncio.timeout(20):
            while await nodes() != count:  # noqa: ASYNC110 - nsqlookupd does not tell
                await asyncio.sleep(0.05)

    async def run() -> None:
        await until_nodes(2)
        async with bus.connect(url) as b, await b.producer() as producer, await b.consumer("t", "g") as consumer:

            async def through(count: int, send: Callable[[bytes], Awaitable[None]]) -> None:
                left = {b"%d" % number for number in range(count)}
                for body in left:
                    await send(body)
                async with asyncio.timeout(20):
                    while left:
                        batch = await consumer.receive(10)
                        await consumer.ack(batch)
                        left -= {delivery.body for delivery in batch}

            async def publish(body: bytes) -> None:
                await producer.publish("t", body)

            await through(20, publish)
            for server in servers:
                await asyncio.to_thread(server.stop)
                await until_nodes(1)
                cpu, until = time.process_time(), time.monotonic() + 1.0
                await through(20, publish)
                await await_until(lambda end=until: time.monotonic() > end)  # type: ignore[misc]
                assert time.process_time() - cpu < 0.8
                assert (await b.health()).ok
                await asyncio.to_thread(server.start)
                await until_nodes(2)
                async with bus.connect(server.url()) as other, await other.producer() as there:

                    async def publish_there(body: bytes, there: bus.Producer = there) -> None:
                        await there.publish("t", body)

                    await through(5, publish_there)

    try:
        asyncio.run(run())
    finally:
        for nsqd in servers:
            nsqd.stop()
        lookupd.stop()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_workers_share_without_a_duplicate(nsqd: Nsqd, tmp_path: Path) -> None:
    """20,000 tasks and two worker processes: each is done once, and both have done some."""
    url, ids = nsqd.url(), [f"{number:05d}" for number in range(20_000)]
    folders = [tmp_path / "one", tmp_path / "two"]

    async def publish() -> None:
        async with bus.connect(url) as b, await b.producer() as producer:
            await producer.publish_many([Message("noted", encode(Task("noted", id=id))) for id in ids])

    asyncio.run(publish())
    for folder in folders:
        folder.mkdir()
    workers = [start_worker(folder, url, "--drain") for folder in folders]
    for worker in workers:
        worker.communicate(timeout=120)
        assert worker.returncode == 0
    one, two = map(executed, folders)
    print(f"{one.total()} and {two.total()}")
    assert one
    assert two
    assert one + two == dict.fromkeys(ids, 1)
    assert asyncio.run(done_tasks(url)) == dict.fromkeys(ids, 1)
