"""Real brokers and databases for the tests that need one.

They run in CI, and where ``TASKBUS_SERVERS`` is set (``make test-servers``): elsewhere they would take time, room and
ports that nobody asked for. A server that cannot be had is a failure in CI and a skip, with its reason, on a laptop.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["missing", "need_servers"]


def need_servers() -> None:
    """Skip, saying why, unless tests against real servers were asked for."""
    if not (os.environ.get("CI") or os.environ.get("TASKBUS_SERVERS")):
        pytest.skip("real servers: run `make test-servers`")


def missing(reason: str) -> NoReturn:
    """This server cannot be had here: skip, saying why, or fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
