"""Buckets of JetStream on real servers: other clients read them, and servers are killed under them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig
from nats.js.errors import KeyNotFoundError, NoKeysError
from nats.js.kv import KeyValue as NatsPyBucket

from bus.errors import (
    BusError,
    BusURLError,
    UnauthorisedError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
    WrongRevisionError,
)
from bus.kv import KeyValue, open_kv
from tests.helpers import await_until
from tests.servers.nats import NatsServer, nats_cluster, nats_server
from tests.unit.engine import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One running server."""
    with nats_server(tmp_path) as server:
        yield server


def test_nats_py_and_we_read_one_another(server: NatsServer) -> None:
    """What either writes, replaces, deletes or purges the other sees, with the same revisions."""

    async def main() -> None:
        client = await nats.connect(server.url)
        async with open_kv(f"{server.url}/shared") as ours:
            theirs = await client.jetstream().key_value("shared")
            revision = await ours.create("a.b", b"ours")
            entry = await theirs.get("a.b")
            assert (entry.value, entry.revision) == (b"ours", revision)
            revision = await theirs.update("a.b", b"theirs", last=revision)
            assert await ours.get("a.b") == (b"theirs", revision)
            await ours.delete("a.b", revision)
            with pytest.raises(KeyNotFoundError):
                await theirs.get("a.b")
            revision = await theirs.create("a.b", b"again")
            for forget in (theirs.delete, theirs.purge):
                assert await ours.get("a.b") == (b"again", revision)
                await forget("a.b")
                assert await ours.get("a.b") is None
                revision = await ours.create("a.b", b"again")
            await ours.create("short", b"1", ttl=1.0)
            assert sorted(await theirs.keys()) == ["a.b", "short"]
            await await_until_gone(theirs, "short")
        await client.close()

    asyncio.run(main())


async def await_until_gone(bucket: NatsPyBucket, key: str) -> None:
    """Wait until nats-py does not find the key."""

    async def gone() -> bool:
        try:
            return key not in await bucket.keys()
        except NoKeysError:  # another key is there: on a busy machine its list is at times over before it begins
            return False

    await eventually(gone, 30)


def test_a_bucket_that_others_made(server: NatsServer) -> None:
    """One with defaults is used, and says that it cannot forget; one that forgets everything in time is refused."""

    async def main() -> None:
        client = await nats.connect(server.url)
        await client.jetstream().create_key_value(bucket="history", history=5)
        plain = StreamConfig(name="KV_plain", subjects=["$KV.plain.>"], max_msgs_per_subject=1, allow_rollup_hdrs=True)
        await client.jetstream().add_stream(plain)
        await client.jetstream().create_key_value(bucket="brief", ttl=60)
        for name in ("plain", "history"):
            async with open_kv(f"{server.url}/{name}") as store:
                revision = await store.create("a", b"1")
                revision = await store.update("a", b"2", revision)
                await store.delete("a", revision)
                assert await store.get("a") is None
                with pytest.raises(UnsupportedError, match="allow_msg_ttl and a history of 1"):
                    await store.create("b", b"1", ttl=1.0)
                with pytest.raises(UnsupportedError, match="allow_msg_ttl and a history of 1"):
                    await store.update("a", b"1", revision, ttl=1.0)
        with pytest.raises(BusURLError, match="forgets everything after 60 s"):
            async with open_kv(f"{server.url}/brief"):
                pass
        with pytest.raises(BusURLError, match="has 1 replicas, not 3"):
            async with open_kv(f"{server.url}/plain?replicas=3"):
                pass
        await client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "name a bucket"),
        ("/a.b", "name a bucket"),
        ("/b?lease=3s", "option lease is for a bus"),
        ("/b?prefix=x", "option prefix is for a bus"),
        ("/b?replicaz=3", "did you mean 'replicas'"),
    ],
)
def test_wrong_urls(path: str, told: str) -> None:
    """What cannot name a bucket is refused before anything is connected."""
    with pytest.raises(BusURLError, match=told):
        open_kv(f"nats://127.0.0.1{path}")


def test_the_permissions_that_suffice(tmp_path: Path) -> None:
    """A user who may do what the page of the bus lists can do everything; one who may not write is told so."""
    (tmp_path / "nats.conf").write_text(
        "authorization { users: [\n"
        "{ user: me, password: pw, permissions: { subscribe: { allow: ['_INBOX.>'] }, publish: { allow: [\n"
        "'$KV.mine.>', '$JS.API.STREAM.*.KV_mine', '$JS.API.STREAM.MSG.GET.KV_mine'] } } }\n"
        "{ user: reader, password: pw, permissions: { publish: { deny: '$KV.>' } } } ] }\n"
    )

    async def main(port: int) -> None:
        async with open_kv(f"nats://me:pw@127.0.0.1:{port}/mine") as store:
            revision = await store.update("a", b"2", await store.create("a", b"1", ttl=30.0))
            await store.delete("a", revision)
            assert await store.get("a") is None
            await store.create("a", b"3")
        async with open_kv(f"nats://reader:pw@127.0.0.1:{port}/mine") as store:
            entry = await store.get("a")
            assert entry is not None
            with pytest.raises(UnauthorisedError, match="Permissions Violation for Publish"):
                await store.update("a", b"4", entry.revision)
        with pytest.raises(UnauthorisedError):
            async with open_kv(f"nats://me:pw@127.0.0.1:{port}/other?timeout=2s"):
                pass

    with nats_server(tmp_path, "-c", str(tmp_path / "nats.conf")) as server:
        asyncio.run(main(server.port))


def test_a_bucket_that_was_deleted(server: NatsServer) -> None:
    """Somebody deleted it while it was in use: every call says so."""

    async def main() -> None:
        client = await nats.connect(server.url)
        async with open_kv(f"{server.url}/gone?timeout=1s") as store:
            await store.create("a", b"1")
            await client.jetstream().delete_key_value("gone")
            with pytest.raises(BusError, match="stream not found"):
                await store.get("a")
            with pytest.raises(UnreachableError, match="no such bucket"):
                await store.create("a", b"1")
        await client.close()

    asyncio.run(main())


async def _count(store: KeyValue, me: str, stop: asyncio.Event) -> int:
    """Count up the shared number until told to stop. How often that was surely done."""
    done = 0
    while not stop.is_set():
        try:
            entry = await store.get("count")
            assert entry is not None
            counts: dict[str, int] = json.loads(entry.value)
            if counts.get(me, 0) > done:
                done += 1  # the last one was done, though it was not confirmed
                assert counts[me] == done
                continue
            counts["all"] += 1
            counts[me] = done + 1
            await store.update("count", json.dumps(counts).encode(), entry.revision)
            done += 1
        except WrongRevisionError:
            continue
        except BusError as error:
            if not error.transient:
                raise
            await asyncio.sleep(0.01)
    return done


def _killed_under_traffic(servers: list[NatsServer], url: str, kills: int) -> None:
    async def main() -> None:
        async with open_kv(url) as store:
            await store.create("count", b'{"all":0}')
        stop = asyncio.Event()
        stores = [open_kv(url) for _ in range(3)]
        for store in stores:
            await store.open()
        counting = [asyncio.create_task(_count(store, f"c{n}", stop)) for n, store in enumerate(stores)]
        watcher = open_kv(url)
        await watcher.open()

        async def counted() -> int:
            while True:
                try:
                    entry = await watcher.get("count")
                    assert entry is not None
                    return int(json.loads(entry.value)["all"])
                except (UnreachableError, UnconfirmedError):
                    await asyncio.sleep(0.01)

        async def more() -> None:
            before = await counted()

            async def reached() -> bool:
                return await counted() >= before + 20

            await eventually(reached, 60)

        for kill in range(kills):
            await more()
            await asyncio.to_thread(servers[kill % len(servers)].kill_and_start)
        await more()
        stop.set()
        totals = await asyncio.gather(*counting)
        entry = await watcher.get("count")
        assert entry is not None
        counts = json.loads(entry.value)
        # The last one of each may have been done without its knowledge.
        assert all(total <= counts.get(f"c{n}", 0) <= total + 1 for n, total in enumerate(totals))
        assert counts["all"] == sum(count for who, count in counts.items() if who != "all")
        for store in (*stores, watcher):
            await store.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_server_killed_under_traffic(server: NatsServer) -> None:
    """Three clients count up one number through four kills -9: nothing confirmed is lost, and nothing counted twice."""
    _killed_under_traffic([server], f"{server.url}/traffic?timeout=2s", 4)


@pytest.mark.slow
def test_nodes_of_a_cluster_killed_under_traffic(tmp_path: Path) -> None:
    """The same on three replicas, of which two nodes are killed one after the other."""
    with nats_cluster(tmp_path) as nodes:
        url = f"nats://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}/traffic?replicas=3&timeout=2s"

        async def wait() -> None:
            async with asyncio.timeout(60):
                while True:
                    try:
                        async with open_kv(url):
                            return
                    except BusError:
                        await asyncio.sleep(0.1)

        asyncio.run(wait())
        _killed_under_traffic(nodes, url, 2)


def _stands_still(pid: int) -> bool:
    """Whether every thread of a process is stopped."""
    states = [path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def test_a_server_that_stands_still(server: NatsServer) -> None:
    """A write that is not answered may have been done, and says so; reading tells, once the server goes on."""

    async def main() -> None:
        async with open_kv(f"{server.url}/still?timeout=500ms") as store:
            server.pause()
            await await_until(lambda: _stands_still(server.pid), 30)
            with pytest.raises(UnconfirmedError, match="may have been done"):
                await store.create("a", b"mine")
            server.resume()

            async def there() -> bool:
                try:
                    entry = await store.get("a")
                    if entry is None:
                        await store.create("a", b"mine")
                except (UnreachableError, UnconfirmedError, WrongRevisionError):
                    return False  # it is on its way, or came in between
                return entry is not None and entry.value == b"mine"

            await eventually(there, 30)

    asyncio.run(main())


def test_a_connection_comes_back(server: NatsServer) -> None:
    """While the server is away every call says so; the same store works when it is back."""

    async def main() -> None:
        async with open_kv(f"{server.url}/back?timeout=300ms") as store:
            revision = await store.create("a", b"1")
            server.kill()
            with pytest.raises((UnreachableError, UnconfirmedError)):
                await store.get("a")
            await asyncio.to_thread(server.start)
            found: list[object] = []

            async def read() -> None:
                while not found:
                    try:
                        found.append(await store.get("a"))
                    except (UnreachableError, UnconfirmedError):
                        await asyncio.sleep(0.02)

            reading = asyncio.create_task(read())
            await await_until(lambda: found, 30)
            await reading
            assert found == [(b"1", revision)]

    asyncio.run(main())
