"""The null bus passes the conformance suite, which holds it to delivering nothing."""

from __future__ import annotations

import pytest

from bus.capabilities import Durability
from bus.conformance import Conformance, Target


class TestNull(Conformance):
    """What is published is confirmed and forgotten."""

    @pytest.fixture
    def target(self) -> Target:
        """There is only one null bus."""
        return Target(url="null:", durability=Durability.D0)
