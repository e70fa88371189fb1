"""arq: one worker process, a hundred jobs at once, looking for more every ten milliseconds, no results.

It asks for a redis-py older than Celery does; in one environment it has the newer one, and works.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from benchmarks.peers.command import main, send, url
from benchmarks.peers.tally import begun

_arq: Any = import_module("arq")
_connections: Any = import_module("arq.connections")


async def noop(ctx: dict[str, Any], sent: float) -> None:
    """Count it."""
    begun(sent)


class WorkerSettings:
    """What its command reads."""

    functions = (noop,)
    redis_settings = _connections.RedisSettings.from_dsn(url() or "redis://127.0.0.1")
    max_jobs = 100
    poll_delay = 0.01
    keep_result = 0


def send_all() -> None:
    """Send what the command line says."""

    async def run() -> None:
        pool = await _arq.create_pool(WorkerSettings.redis_settings)
        await send(lambda sent: pool.enqueue_job("noop", sent))
        await pool.aclose()

    asyncio.run(run())


if __name__ == "__main__":
    main("with_arq", ["arq", "benchmarks.peers.with_arq.WorkerSettings"])
