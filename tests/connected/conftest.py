"""What every test against a real server shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.nsq import Nsqd
from tests.servers.pubsub import PubsubEmulator, pubsub_emulator


@pytest.fixture
def nsqd(tmp_path: Path) -> Iterator[Nsqd]:
    """One running nsqd."""
    server = Nsqd(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pubsub(tmp_path: Path) -> Iterator[PubsubEmulator]:
    """One running Pub/Sub emulator."""
    with pubsub_emulator(tmp_path) as server:
        yield server
