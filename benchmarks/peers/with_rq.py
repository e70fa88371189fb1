"""RQ with its ``SimpleWorker``, which does jobs in its own process rather than fork one for each; no results."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from benchmarks.peers.command import main, send_calls, url
from benchmarks.peers.tally import begun

_redis: Any = import_module("redis")
_rq: Any = import_module("rq")


def send_all() -> None:
    """Send what the command line says."""
    queue = _rq.Queue(connection=_redis.Redis.from_url(url()))
    send_calls(lambda sent: queue.enqueue(begun, sent, result_ttl=0))


if __name__ == "__main__":
    main("with_rq", ["rq", "worker", "--url", sys.argv[2], "--worker-class", "rq.SimpleWorker", "--quiet"])
