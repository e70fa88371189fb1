"""The NSQ bus passes the conformance suite on a real nsqd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bus.capabilities import Durability
from bus.conformance import Conformance, Target
from tests.servers.nsq import Nsqd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nsqd]:
    """One nsqd for all tests, which use topics of their own."""
    nsqd = Nsqd(tmp_path_factory.mktemp("nsqd"), "-max-msg-timeout=6s", "-max-req-timeout=1m", "-max-msg-size=65536")
    nsqd.start()
    yield nsqd
    nsqd.stop()


class TestNsq(Conformance):
    """Real leases of two seconds, and a ceiling short enough to wait for."""

    @pytest.fixture
    def target(self, server: Nsqd) -> Target:
        """One nsqd that can be restarted and killed."""
        return Target(
            url=server.url(lease="2s", max_lease="6s", max_delay="1m", max_size="64KiB"),
            durability=Durability.D1,
            patience=10.0,
            quiet=0.3,
            restart=server.restart,
            kill=server.kill_and_start,
        )
