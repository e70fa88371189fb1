"""Faults on the buses that are files, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nemesis.short import short_nemesis
from tests.nemesis.trial import run_trial


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["sqlite", "file"])
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    """All that was accepted is done or in the dead letters, no more is done twice than the faults allow, by itself."""
    short_nemesis(name, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_is_lost_is_noticed(tmp_path: Path) -> None:
    """Workers that acknowledge what they have not done lose tasks when they are killed, and the account says so."""
    trial = run_trial(
        "sqlite",
        ["worker kill -9"],
        tmp_path,
        tasks=150,
        seed=1,
        seconds=5,
        mean=5,
        options=["--ack", "on-receipt"],
        patience=5,
    )
    assert trial.drained is None
    assert 0 < trial.account.lost < 150
    assert f"{trial.account.lost} of 150 tasks were lost" in trial.broken
