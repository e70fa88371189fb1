"""The Kafka bus passes the conformance suite on a real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("confluent_kafka")

from bus.capabilities import Durability
from bus.conformance import Conformance, Target
from tests.servers.kafka import KafkaServer

#: A dead member is found out within a second, and nobody waits long for a delivery that a test holds on to.
_OPTIONS = "session=1s&handover=500ms&max_size=64KiB"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker for all tests."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


class TestKafka(Conformance):
    """One partition: the topic keeps its order."""

    @pytest.fixture
    def target(self, server: KafkaServer) -> Target:
        """A broker that can be restarted and killed."""
        return Target(
            url=f"{server.url}?partitions=1&{_OPTIONS}",
            durability=Durability.D2,
            patience=15.0,
            quiet=0.4,
            delay=3.0,
            restart=server.restart,
            kill=server.kill_and_start,
        )


class TestKafkaPartitions(Conformance):
    """Three partitions, and the group protocol of KIP-848: only messages with the same key keep their order."""

    @pytest.fixture
    def target(self, server: KafkaServer) -> Target:
        """The same broker, which decides with this protocol when a member is dead: after two seconds."""
        return Target(
            url=f"{server.url}?partitions=3&protocol=consumer&{_OPTIONS}",
            durability=Durability.D2,
            patience=15.0,
            quiet=0.4,
            delay=3.0,
        )
