"""Faults on real brokers, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nemesis.short import short_nemesis
from tests.servers import need_servers

#: What each needs that may not be installed.
_NEEDS = {"nats": "bus.nats", "nsq": "bus.nsq", "kafka": "confluent_kafka", "pubsub": "google.pubsub_v1"}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", _NEEDS)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    """What its tier covers loses nothing; no more is done twice than the faults allow; all goes on by itself."""
    need_servers()
    pytest.importorskip(_NEEDS[name])
    short_nemesis(name, tmp_path)
