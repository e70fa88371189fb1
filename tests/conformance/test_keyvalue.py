"""Every key-value store passes the suite: SQLite, PostgreSQL, MariaDB and JetStream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bus.conformance import KeyValueTests
from bus.conformance.keyvalue import MakeStore
from bus.kv import open_kv
from tests.servers.nats import NatsServer, nats_server


class TestSql(KeyValueTests):
    """A table in each kind of database."""

    @pytest.fixture
    def make_store(self, state_url: str) -> MakeStore:
        """Clients of a new database."""
        url = state_url if "://" in state_url else f"sqlite:{state_url}"
        return lambda: open_kv(url)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


class TestNats(KeyValueTests):
    """A bucket of a real server."""

    @pytest.fixture
    def make_store(self, server: NatsServer) -> MakeStore:
        """Clients of one bucket."""
        return lambda: open_kv(f"{server.url}/suite")
