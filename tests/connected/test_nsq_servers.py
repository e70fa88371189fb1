"""NSQ with several servers, with servers that go and come back, and what they refuse."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import bus
from bus import BusURLError, Message, TooLargeError, UnauthorisedError
from tests.helpers import wait_until
from tests.servers.nsq import Lookupd, Nsqd
from tests.taskbus_command import command_line, environment


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Nsqd]]:
    """Two running nsqds."""
    servers = [Nsqd(tmp_path), Nsqd(tmp_path)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


def _url(servers: list[Nsqd], more: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{server.tcp}" for server in servers)
    http = ",".join(f"127.0.0.1:{server.http}" for server in servers)
    return f"nsq://{hosts}?http={http}&lease=2s{more}"


def test_one_slot_serves_two_nsqds(pair: list[Nsqd]) -> None:
    """With one message asked for at a time, what is on both servers comes, and ids are unique."""

    async def run() -> None:
        async with bus.connect(_url(pair)) as b, await b.producer() as producer:
            for number in range(10):
                await producer.publish("t", b"%d" % number)
            assert (await b.depth("t", "g")).total == 10
            async with await b.consumer("t", "g") as consumer:
                got: list[bus.Delivery] = []
                while len(got) < 10:
                    (delivery,) = await consumer.receive(1, timeout=10)
                    await consumer.ack([delivery])
                    got.append(delivery)
            assert {int(delivery.body) for delivery in got} == set(range(10))
            assert {delivery.id.rpartition(":")[2] for delivery in got} == {str(server.tcp) for server in pair}

    asyncio.run(run())


def test_publishing_goes_on_without_one_of_two(pair: list[Nsqd]) -> None:
    """When one of two nsqds is stopped publishing goes to the other, and health stays true and says which is away."""

    async def run() -> None:
        async with (
            bus.connect(_url(pair)) as b,
            await b.producer() as producer,
            await b.consumer("t", "g"),
        ):
            assert "is away" not in (await b.health()).detail
            for number in range(4):
                await producer.publish("t", b"%d" % number)
            await asyncio.to_thread(pair[0].stop)
            for _ in range(20):
                await producer.publish_many([Message("t", b"more")])
            health = await b.health()
            assert health.ok
            assert f"127.0.0.1:{pair[0].tcp} is away" in health.detail

    asyncio.run(run())


def test_a_consumer_outlives_its_server(nsqd: Nsqd, caplog: pytest.LogCaptureFixture) -> None:
    """While nsqd is away receive waits and health says so; when it is back, messages come again."""
    caplog.set_level(logging.ERROR, "taskbus.bus")

    async def run() -> None:
        async with bus.connect(nsqd.url(lease="2s")) as b, await b.consumer("t", "g") as consumer:
            waiting = asyncio.create_task(consumer.receive())
            await asyncio.to_thread(nsqd.stop)
            for _ in range(1000):
                if not (await b.health()).ok:
                    break
            assert not (await b.health()).ok
            assert not waiting.done()
            await asyncio.to_thread(nsqd.start)
            async with await b.producer() as producer:
                await producer.publish("t", b"{}")
            async with asyncio.timeout(20):
                assert [delivery.body for delivery in await waiting] == [b"{}"]

    asyncio.run(run())


def test_nodes_are_found_and_come_later(tmp_path: Path) -> None:
    """Through nsqlookupd a consumer finds an nsqd that is started after it, and depth is asked without an option."""
    lookupd = Lookupd(tmp_path)
    lookupd.start()
    servers = [Nsqd(tmp_path, f"-lookupd-tcp-address=127.0.0.1:{lookupd.tcp}") for _ in range(2)]
    servers[0].start()
    url = f"nsq:?lookupd=http://127.0.0.1:{lookupd.http}&poll=200ms"

    async def run() -> None:
        bodies: list[bytes] = []
        b = bus.connect(url)
        async with asyncio.timeout(20):
            while not (await b.health()).ok:  # noqa: ASYNC110 - nsqd registers when it likes
                await asyncio.sleep(0.05)
        async with b, await b.consumer("t", "g") as consumer:
            await asyncio.to_thread(servers[1].start)
            async with bus.connect(servers[1].url()) as other, await other.producer() as producer:
                await producer.publish("t", b"from the second")
            while not bodies:
                batch = await consumer.receive(5, timeout=20)
                assert batch
                await consumer.ack(batch)
                bodies += [delivery.body for delivery in batch]
            assert "t" in await b.topics()
            assert await b.groups("t") == ["g"]
        assert bodies == [b"from the second"]

    try:
        asyncio.run(run())
    finally:
        for server in (*servers, lookupd):
            server.stop()


def test_limits_of_the_server_are_told(tmp_path: Path) -> None:
    """A ceiling or a size which the URL gives greater than the server's is an error that names both."""
    server = Nsqd(tmp_path, "-max-msg-timeout=5s", "-max-msg-size=100")
    server.start()

    async def run() -> None:
        with pytest.raises(BusURLError, match="max_lease=5s"):
            await bus.connect(server.url(lease="2s")).open()
        async with bus.connect(server.url(lease="2s", max_lease="5s")) as b, await b.producer() as producer:
            # Often and with large ones, as the refusal and the end of the connection race.
            for size in (*range(101, 111), *range(1_000_000, 1_000_010)):
                with pytest.raises(TooLargeError, match="--max-msg-size") as caught:
                    await producer.publish("t", b"x" * size)
                assert (caught.value.size, caught.value.limit) == (size, 100)
                with pytest.raises(TooLargeError):
                    await producer.publish_many([Message("t", b"x" * n) for n in (1, size, 2)])
            await producer.publish("t", b"x" * 100)

    try:
        asyncio.run(run())
    finally:
        server.stop()


def test_tls_is_used_and_required(tmp_path: Path) -> None:
    """With the CA messages travel over TLS; without it, and without tls=true, the server or we refuse."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    made = subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"openssl makes no certificate: {made.stderr.decode()[-200:]}")
    server = Nsqd(tmp_path, f"-tls-cert={cert}", f"-tls-key={key}", "-tls-required=tcp-https")
    server.start()

    async def run() -> None:
        async with bus.connect(server.url(tls="true", tls_ca=str(cert))) as b, await b.producer() as producer:
            await producer.publish_many([Message("t", b"%d" % number) for number in range(500)])
            async with await b.consumer("t", "g") as consumer:
                got = 0
                while got < 500:
                    batch = await consumer.receive(100, timeout=10)
                    assert batch
                    await consumer.ack(batch)
                    got += len(batch)
        with pytest.raises(BusURLError, match="tls_ca"):
            await bus.connect(server.url(tls="true")).open()
        async with bus.connect(server.url()) as b, await b.producer() as producer:
            with pytest.raises(UnauthorisedError, match="tls=true"):
                await producer.publish("t", b"{}")

    try:
        asyncio.run(run())
    finally:
        server.stop()


def test_a_worker_works_on_it(nsqd: Nsqd, tmp_path: Path) -> None:
    """``taskbus worker``, ``send --wait`` and ``depth`` work on NSQ by its URL alone."""
    url = nsqd.url()
    env = environment()
    log = tmp_path / "log"
    with log.open("wb") as err:
        worker = subprocess.Popen(command_line("worker", "hello-world", "--bus", url), env=env, stderr=err)
    try:
        wait_until(lambda: "started" in log.read_text())
        sent = subprocess.run(
            command_line("send", "hello-world", "world", "--wait", "--bus", url),
            env=env,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert sent.returncode == 0, sent.stderr
        assert '"result":"complete"' in sent.stdout
    finally:
        worker.terminate()
        worker.wait(timeout=20)
    assert "Traceback" not in log.read_text()
