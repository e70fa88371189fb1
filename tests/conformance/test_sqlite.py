"""The embedded SQL bus passes the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.capabilities import Durability
from bus.conformance import Conformance, ManualClock, Target


class TestSqlite(Conformance):
    """A database file of its own for each test, with time moved by hand."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        """The file is the bus: there is no server to restart or kill."""
        return Target(url=f"sqlite:{tmp_path}/bus.db", durability=Durability.D3, clock=ManualClock())
