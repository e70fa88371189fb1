"""Dramatiq on Redis or RabbitMQ: one worker process, eight threads, 200 messages fetched ahead."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from benchmarks.peers.command import main, send_calls, url
from benchmarks.peers.tally import begun

os.environ.setdefault("dramatiq_queue_prefetch", "200")
_dramatiq: Any = import_module("dramatiq")
if url().startswith("amqp:"):
    _rabbitmq: Any = import_module("dramatiq.brokers.rabbitmq")
    _dramatiq.set_broker(_rabbitmq.RabbitmqBroker(url=url()))
else:
    _redis: Any = import_module("dramatiq.brokers.redis")
    _dramatiq.set_broker(_redis.RedisBroker(url=url()))

noop = _dramatiq.actor(actor_name="noop")(begun)


def send_all() -> None:
    """Send what the command line says."""
    send_calls(noop.send)


if __name__ == "__main__":
    main("with_dramatiq", ["dramatiq", "benchmarks.peers.with_dramatiq", "--processes", "1", "--threads", "8"])
