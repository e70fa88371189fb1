"""The in-memory bus passes the conformance suite."""

from __future__ import annotations

import uuid

import pytest

from bus.capabilities import Durability
from bus.conformance import Conformance, ManualClock, Target


class TestMemory(Conformance):
    """Every bus of one name shares one broker."""

    @pytest.fixture
    def target(self) -> Target:
        """A broker of its own, with time moved by hand."""
        return Target(url=f"memory:{uuid.uuid4()}", durability=Durability.D0, clock=ManualClock(), quiet=0.03)


class TestMemoryInRealTime(Conformance):
    """The same, by the system's clock and with short leases, as a real broker is tested."""

    @pytest.fixture
    def target(self) -> Target:
        """A broker of its own, with a lease of half a second."""
        return Target(
            url=f"memory:{uuid.uuid4()}?lease=500ms&max_size=64KiB", durability=Durability.D0, delay=0.2, quiet=0.05
        )
