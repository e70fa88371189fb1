"""The NATS JetStream bus passes the conformance suite on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("nats")

from bus.capabilities import Durability
from bus.conformance import Conformance, Target
from bus.contract import Depth, Message
from tests.servers.nats import NatsServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


class TestNats(Conformance):
    """Real leases of a second. JetStream counts every delivery, so a release counts."""

    def test_depth_counts_every_state(self, target: Target) -> None:
        """As in the suite, but JetStream counts a nacked message as in flight until it is delivered again."""

        async def look() -> list[Depth]:
            seen: list[Depth] = []
            async with target.connect() as bus, await bus.producer() as producer:
                await producer.publish_many([Message("depths", b"%d" % number) for number in range(5)])
                async with await bus.consumer("depths", "g") as consumer:
                    held = await consumer.receive(3, timeout=target.patience)
                    seen.append(await bus.depth("depths", "g"))
                    await consumer.ack(held[:1])
                    await consumer.nack(held[1:2])
                    seen.append(await bus.depth("depths", "g"))
                seen.append(await bus.depth("depths", "g"))
            return seen

        assert asyncio.run(look()) == [Depth(2, 0, 3), Depth(2, 0, 2), Depth(2, 0, 2)]

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
            release_counts=True,
        )
