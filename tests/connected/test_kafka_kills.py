"""kill -9 of a worker on Kafka at random moments: nothing is lost, and no more is done twice than there were kills.

By default a short form runs; ``TASKBUS_KILLS=200 TASKBUS_KILL_TASKS=20000`` runs the long one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")

from tests.kills import kill_workers
from tests.servers.kafka import KafkaServer

_KILLS = int(os.environ.get("TASKBUS_KILLS", "15"))
_TASKS = int(os.environ.get("TASKBUS_KILL_TASKS", "1500"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills(tmp_path: Path) -> None:
    """Every task is done at least once, duplicates do not exceed the kills, and each is reported.

    A result may be reported twice: publishing it and acknowledging are two steps on this bus.
    """
    server = KafkaServer(tmp_path)
    server.start()
    try:
        kill_workers(tmp_path, f"{server.url}?session=1s", most=_KILLS, tasks=_TASKS)
    finally:
        server.stop()
