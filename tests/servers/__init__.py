"""Real brokers and databases for the tests that need one.

They run only where ``TASKBUS_SERVERS`` is set (``make test-servers``): the servers take time, room and ports.
"""

from __future__ import annotations

import os

import pytest

__all__ = ["need_servers"]


def need_servers() -> None:
    """Skip, saying why, unless tests against real servers were asked for."""
    if not os.environ.get("TASKBUS_SERVERS"):
        pytest.skip("real servers: run `make test-servers`")
