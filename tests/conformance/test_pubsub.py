"""The Pub/Sub bus passes the conformance suite on the emulator of the Google Cloud CLI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("google.pubsub_v1")

from bus.capabilities import Durability
from bus.conformance import Conformance, Target
from bus.conformance.publishing import PublishingTests
from bus.conformance.receiving import ReceivingTests
from bus.conformance.sharing import SharingTests
from tests.servers.pubsub import PubsubEmulator, pubsub_emulator

#: Seconds. What a server has sent in an answer that nobody read any more comes again after ten at the earliest.
_PATIENCE = 25.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubsubEmulator]:
    """One emulator for all tests, which use topics of their own."""
    with pubsub_emulator(tmp_path_factory.mktemp("pubsub")) as server:
        yield server


class TestPubsub(Conformance):
    """Real leases of a second. The emulator keeps nothing when it ends, so it is never restarted here."""

    @pytest.fixture
    def target(self, server: PubsubEmulator) -> Target:
        """As a worker would use it, but for the lease."""
        return Target(
            url=f"{server.url}&lease=1s&max_size=1MB", durability=Durability.D0, patience=_PATIENCE, quiet=0.4
        )


class TestPubsubInOrder(PublishingTests, ReceivingTests, SharingTests):
    """The parts of the suite that order has a say in, with subscriptions that keep it by key."""

    @pytest.fixture
    def target(self, server: PubsubEmulator) -> Target:
        """As above, with order."""
        url = f"{server.url}&lease=1s&max_size=1MB&ordering=true&prefix=ordered"
        return Target(url=url, durability=Durability.D0, patience=_PATIENCE, quiet=0.4)
