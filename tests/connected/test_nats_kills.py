"""kill -9 of a worker on NATS at random moments: nothing is lost, and no more is done twice than there were kills.

By default a short form runs; ``TASKBUS_KILLS=200 TASKBUS_KILL_TASKS=20000`` runs the long one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kills import kill_workers
from tests.servers.nats import nats_server

_KILLS = int(os.environ.get("TASKBUS_KILLS", "15"))
_TASKS = int(os.environ.get("TASKBUS_KILL_TASKS", "1500"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills(tmp_path: Path) -> None:
    """Every task is done at least once, duplicates do not exceed the kills, and each is reported exactly once.

    Publishing a result and acknowledging are two steps on this bus, but the server drops a result that comes again.
    """
    with nats_server(tmp_path) as server:
        assert kill_workers(tmp_path, f"{server.url}?lease=1s", most=_KILLS, tasks=_TASKS).reported_twice == 0
