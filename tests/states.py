"""The databases that state is tested on: SQLite always, PostgreSQL and MariaDB where servers were asked for.

``tests/conftest.py`` gives them to every test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.servers.mariadb import MariadbServer
from tests.servers.postgres import PostgresServer

__all__ = ["DATABASES", "mariadb", "postgres", "state_url"]

DATABASES = ("sqlite", "postgres", "mariadb")


class _Server(Protocol):
    def new(self) -> str: ...


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """A MariaDB server."""
    server = MariadbServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=DATABASES)
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to keep state: a new, empty database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "state.db")
    server: _Server = request.getfixturevalue(request.param)
    return server.new()
