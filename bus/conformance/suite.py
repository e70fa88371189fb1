"""The whole suite as one class to inherit from."""

from __future__ import annotations

import pytest

from bus.conformance.bench import Bench
from bus.conformance.closing import ClosingTests
from bus.conformance.declaring import DeclaringTests
from bus.conformance.delays import DelayTests
from bus.conformance.ending import EndingTests
from bus.conformance.finishing import FinishingTests
from bus.conformance.leases import LeaseTests
from bus.conformance.looking import LookingTests
from bus.conformance.publishing import PublishingTests
from bus.conformance.receiving import ReceivingTests
from bus.conformance.sharing import SharingTests
from bus.conformance.surviving import SurvivingTests
from bus.conformance.target import Target

__all__ = ["Conformance"]


class Conformance(
    DeclaringTests,
    PublishingTests,
    ReceivingTests,
    SharingTests,
    LeaseTests,
    DelayTests,
    FinishingTests,
    ClosingTests,
    LookingTests,
    EndingTests,
    SurvivingTests,
):
    """Every test, each taking the fixture ``target``: see ``docs/adapters.md``."""

    def test_m01_random_histories(self, target: Target) -> None:
        """Whatever is done in whatever order, nothing is lost, invented, early or miscounted."""
        Bench(target).require("lease", "shared", lacks=["finite"])
        if target.clock is None:
            pytest.skip("lease: random histories need a manual clock")
        pytest.importorskip("hypothesis", reason="random histories need hypothesis: pip install 'taskbus[test]'")
        from bus.conformance.model import run_model

        run_model(target)
