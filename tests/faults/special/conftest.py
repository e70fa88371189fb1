"""What every special scenario shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.special.stage import Stage, need_faults, stage


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """The bus that :func:`tests.faults.special.stage.on` names."""
    name, short = request.param
    if not short:
        need_faults(f"on {name}, part of the long form of the fault suite")
    with stage(name, tmp_path) as found:
        yield found
