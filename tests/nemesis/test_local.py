"""Faults on the buses that are files, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nemesis.short import short_nemesis


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["sqlite", "file"])
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    """All that was accepted is done or in the dead letters, no more is done twice than the faults allow, by itself."""
    short_nemesis(name, tmp_path)
