"""The suite passes buses that do less and say so: nothing is asked of a bus that it does not declare."""

from __future__ import annotations

import pytest

from bus.conformance import Conformance, Target
from tests.conformance.lesser import ModestBus, SolitaryBus
from tests.conformance.variants import target_of


class TestModest(Conformance):
    """A bus that declares hardly anything."""

    @pytest.fixture
    def target(self) -> Target:
        """With the patience of a real target: nothing here should have to wait."""
        return target_of(ModestBus, patience=10.0, limit=60.0)


class TestSolitary(Conformance):
    """A bus for one consumer."""

    @pytest.fixture
    def target(self) -> Target:
        """With the patience of a real target: nothing here should have to wait."""
        return target_of(SolitaryBus, patience=10.0, limit=60.0)
