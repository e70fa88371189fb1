"""kill -9 of a worker on NSQ at random moments: nothing is lost, and no more is done twice than there were kills.

``TASKBUS_NSQ_KILLS=50`` runs longer.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kills import kill_workers
from tests.servers.nsq import Nsqd

_KILLS = int(os.environ.get("TASKBUS_NSQ_KILLS", "15"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills(nsqd: Nsqd, tmp_path: Path) -> None:
    """Every task is done at least once, duplicates do not exceed the kills, and each is reported."""
    kill_workers(tmp_path, nsqd.url(lease="1s"), most=_KILLS, tasks=_KILLS * 100)
