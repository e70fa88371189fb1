"""kill -9 of a worker at random moments: nothing is lost, and no more is done twice than there were kills.

By default a short form runs; ``TASKBUS_KILLS=200 TASKBUS_KILL_TASKS=20000`` runs the long one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kills import kill_workers

_KILLS = int(os.environ.get("TASKBUS_KILLS", "25"))
_TASKS = int(os.environ.get("TASKBUS_KILL_TASKS", "2500"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("url", ["sqlite:work.db?lease=1s", "file:tasks?lease=1s"])
def test_kills(url: str, tmp_path: Path) -> None:
    """Every task is done at least once, duplicates do not exceed the kills, nor do results reported twice."""
    found = kill_workers(tmp_path, url.replace(":", f":{tmp_path}/", 1), most=_KILLS, tasks=_TASKS)

    assert found.reported_twice <= found.kills
