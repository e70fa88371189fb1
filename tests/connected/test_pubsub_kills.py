"""kill -9 of a worker on Pub/Sub at random moments: nothing is lost, and no more is done twice than there were kills.

By default a short form runs; ``TASKBUS_KILLS=50 TASKBUS_KILL_TASKS=5000`` runs a longer one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kills import kill_workers

pytest.importorskip("google.pubsub_v1")

from tests.servers.pubsub import PubsubEmulator

_KILLS = int(os.environ.get("TASKBUS_KILLS", "15"))
_TASKS = int(os.environ.get("TASKBUS_KILL_TASKS", "1500"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills(pubsub: PubsubEmulator, tmp_path: Path) -> None:
    """Every task is done at least once, duplicates do not exceed the kills, and each is reported.

    A result may be reported twice: publishing it and acknowledging are two steps on this bus.
    """
    kill_workers(tmp_path, f"{pubsub.url}&lease=2s", most=_KILLS, tasks=_TASKS)
