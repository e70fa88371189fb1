"""The short form of the nemesis, for the default run: some faults at a time, the same for the same seed.

``SEED=`` in the environment gives other ones. The long forms are ``make faults`` and ``make soak HOURS=…``.
"""

from __future__ import annotations

import os
from pathlib import Path

import tests.nemesis.catalogue  # noqa: F401 - registers the faults
from tests.nemesis.fault import FAULTS
from tests.nemesis.table import row
from tests.nemesis.trial import run_trial

__all__ = ["short_nemesis"]

_SEED = int(os.environ.get("SEED") or 20261121)
_TASKS, _SECONDS, _FAULTS = 200, 8.0, 3


def short_nemesis(name: str, folder: Path) -> None:
    """Fails unless what the bus promises held."""
    print(f"SEED={_SEED}")
    trial = run_trial(
        name,
        list(FAULTS),
        folder,
        tasks=_TASKS,
        seed=_SEED,
        seconds=_SECONDS,
        mean=_SECONDS / 4,
        mixed=_FAULTS,
        say=print,
    )
    print(row(trial))
    assert trial.strikes
    assert trial.account.accepted >= _TASKS
    assert not trial.broken
