"""The file bus passes the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.capabilities import Durability
from bus.conformance import Conformance, ManualClock, Target


class TestFile(Conformance):
    """A directory of its own for each test, with time moved by hand."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        """The directory is the bus: there is no server to restart or kill."""
        return Target(url=f"file:{tmp_path}/bus", durability=Durability.D3, clock=ManualClock())
