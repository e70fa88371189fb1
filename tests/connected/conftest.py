"""What every test against a real server shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.nsq import Nsqd


@pytest.fixture
def nsqd(tmp_path: Path) -> Iterator[Nsqd]:
    """One running nsqd."""
    server = Nsqd(tmp_path)
    server.start()
    yield server
    server.stop()
