"""The NATS JetStream bus passes the conformance suite on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("nats")

from bus.capabilities import Durability
from bus.conformance import Conformance, Target
from tests.servers.nats import NatsServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


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
