"""The duplicate guard with real worker processes on the embedded bus and an embedded store.

By default a short form runs; ``TASKBUS_KILLS=100 TASKBUS_KILL_TASKS=500`` runs the long one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.guarded_workers import freeze_a_worker, kill_guarded_workers

_KILLS = int(os.environ.get("TASKBUS_KILLS", "5"))
_VALUES = int(os.environ.get("TASKBUS_KILL_TASKS", "60")) // 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_workers(tmp_path: Path) -> None:
    """Through kills -9 the function runs for no value twice at a time, and is not repeated for what was done."""
    url, guard = f"sqlite:{tmp_path}/work.db?lease=2s", f"sqlite:{tmp_path}/guard.db"
    kill_guarded_workers(tmp_path, url, guard, kills=_KILLS, values=_VALUES, copies=3)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_frozen_worker(tmp_path: Path) -> None:
    """A worker that stood still for longer than its leases reports nothing when it goes on."""
    freeze_a_worker(tmp_path, f"sqlite:{tmp_path}/work.db?lease=2s", f"sqlite:{tmp_path}/guard.db")
