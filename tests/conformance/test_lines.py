"""Plain files of lines pass the conformance suite, as a source that ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.capabilities import Durability
from bus.conformance import Conformance, ManualClock, Target


class TestLines(Conformance):
    """One file, written and read, new for each test."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        """A short longest line, so that it can be tried."""
        path = tmp_path / "tasks.jsonl"
        path.touch()
        return Target(url=f"lines:{path}?max_line=256KiB", durability=Durability.D3, clock=ManualClock())
