"""Celery: one prefork process, acknowledged when it is received, 100 messages fetched ahead, no results."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.peers.command import main, send_calls, url
from benchmarks.peers.tally import begun

_celery: Any = import_module("celery")
app = _celery.Celery("peers", broker=url())
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=100)
_OPTIONS = ("-c", "1", "-l", "ERROR", "--without-gossip", "--without-mingle")

noop = app.task(name="noop")(begun)


def send_all() -> None:
    """Send what the command line says."""
    send_calls(noop.delay)


if __name__ == "__main__":
    main("with_celery", ["celery", "-A", "benchmarks.peers.with_celery", "worker", *_OPTIONS])
