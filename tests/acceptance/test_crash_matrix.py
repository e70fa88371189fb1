"""The crash matrix in short, on the embedded bus: see :mod:`tests.crash_matrix`.

``make crash-matrix`` is the long form.
"""

from __future__ import annotations

import pytest

from tests.crash_matrix.case import Case
from tests.crash_matrix.cases import CASES
from tests.crash_matrix.short import Outcomes, run_short


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What came of each case that is wanted. They run side by side, for each mostly waits."""
    return run_short(request, tmp_path_factory.mktemp("crashes"), "sqlite")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_killed_at_random_moments(case: type[Case], outcomes: Outcomes) -> None:
    """Killed ten times while it makes 500 tasks: the set of distinct tasks is that of a run without kills."""
    outcomes.verify(case)
