"""Measuring other task queues: ours is measured the same way, and what is not installed is said to be missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("nats")  # the table knows how to start a server for it

from benchmarks.peers import measure as measuring
from benchmarks.peers import table


def test_a_peer_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row names it, its distribution and where it was looked for."""
    monkeypatch.setattr(table, "_PEERS", {"redis": (("celery_redis", "celery"),)})
    (said,) = table.peers(tmp_path, tmp_path / "python", 10)
    assert said == f"celery_redis: celery is not installed in {tmp_path}/python; pip said why when `make` installed it"


def test_ours_is_measured_as_the_peers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent one by one and done; lone tasks to an idle worker, whose processes are found."""
    monkeypatch.setattr(measuring, "_LONE", 5)
    found = measuring.measure("ours", Path(sys.executable), f"sqlite:{tmp_path}/tasks.db", tmp_path, 50)
    assert found.sent > 0
    assert found.done > 0
    assert found.cpu >= 0
    assert 0 < found.p50 <= found.p99
    assert found.memory > 5


def test_a_worker_that_does_not_work_is_told(tmp_path: Path) -> None:
    """With the end of what it wrote."""
    with pytest.raises(RuntimeError, match="nosuch"):
        measuring.measure("ours", Path(sys.executable), "nosuch:", tmp_path, 50)
