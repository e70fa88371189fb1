"""The NATS JetStream bus passes the conformance suite on a real server, and on a cluster of three."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import bus
from bus.capabilities import Durability
from bus.conformance import Conformance, Target
from tests.servers.nats import NatsServer, nats_cluster, nats_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestNats(Conformance):
    """Real leases of a second."""

    @pytest.fixture
    def target(self, server: NatsServer) -> Target:
        """A server that can be restarted and killed."""
        return Target(
            url=f"{server.url}?lease=1s",
            durability=Durability.D2,
            patience=6.0,
            quiet=0.3,
            restart=server.restart,
            kill=server.kill_and_start,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a cluster for all tests, which has found its leader."""

    async def wait(url: str) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    async with bus.connect(url) as b, await b.producer() as producer:
                        return await producer.publish("first", b"1")
                except bus.BusError:
                    await asyncio.sleep(0.1)

    with nats_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        url = f"nats://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}?replicas=3"
        asyncio.run(wait(url))
        yield url


@pytest.mark.slow
class TestNatsCluster(Conformance):
    """Three replicas of everything."""

    @pytest.fixture
    def target(self, cluster: str) -> Target:
        """What kills of its nodes do is tested elsewhere."""
        return Target(url=f"{cluster}&lease=2s", durability=Durability.D3, patience=10.0, quiet=0.5)
