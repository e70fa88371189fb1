"""The crash matrix in short, on NATS: see :mod:`tests.crash_matrix`. ``make crash-matrix`` is the long form."""

from __future__ import annotations

import pytest

from tests.crash_matrix.case import Case
from tests.crash_matrix.chains import OnDone, Workflow
from tests.crash_matrix.short import Outcomes, run_short
from tests.servers import need_servers


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What came of each case that is wanted."""
    need_servers()
    return run_short(request, tmp_path_factory.mktemp("crashes"), "nats")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", [OnDone, Workflow], ids=lambda case: case.__name__)
def test_killed_at_random_moments(case: type[Case], outcomes: Outcomes) -> None:
    """Where publishing and acknowledging are two steps: the set of distinct tasks is that of a run without kills."""
    outcomes.verify(case)
