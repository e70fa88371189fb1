"""What a NATS server tells of its streams and consumers, and on its monitoring port: see :mod:`bus.facts`.

``stream.exists``, ``.replicas``, ``.current`` (replicas that are up to date), ``.storage``, ``.discard``,
``.retention``, ``.max_age``, ``.duplicate_window`` (seconds; 0 = none), ``.max_bytes``, ``.bytes`` (-1 = unbounded) and
``.oldest`` (when its oldest message came, seconds since the epoch):
https://docs.nats.io/nats-concepts/jetstream/streams

``lease``, ``consumer.max_ack_pending``, ``consumer.max_deliver`` (-1 = unbounded), ``consumer.redelivered``:
https://docs.nats.io/nats-concepts/jetstream/consumers

``server.sync_interval`` (seconds; 0 = at every message), from ``/varz`` of the monitoring port only.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import datetime
from typing import Any
from urllib.error import URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import Request, urlopen

from bus.errors import BusURLError
from bus.facts import Fact, Look, clock_ahead, unknown
from bus.nats.names import stream_name
from bus.nats.options import NatsOptions
from bus.nats.store import LEASE, Store

__all__ = ["diagnose"]

_NANO = 10**9
_LARGEST = 16 * 1024**2
_FRACTION = re.compile(r"(\.\d{6})\d+")
_NO_MONITOR = "the server tells this on its monitoring port only: give --monitor http://HOST:8222"


async def diagnose(store: Store, options: NatsOptions, look: Look) -> list[Fact]:
    """The facts of the streams and consumers that ``look`` names.

    Raises:
        BusError: the server cannot be asked.
        BusURLError: ``look.monitor`` is no http:// or https:// address.
    """
    split = None if look.monitor is None else urlsplit(look.monitor)
    if split is not None and (split.scheme not in ("http", "https") or not split.hostname or split.username):
        raise BusURLError("nats: the monitoring port is given as http://HOST:8222")
    facts = [Fact("option.replicas", options.replicas, "the URL")]
    for topic in dict.fromkeys(topic for topic, _ in look.topics):
        facts += await _stream(store, topic)
    for topic, group in look.topics:
        if group is not None:
            facts += await _consumer(store, options, topic, group)
    facts += await asyncio.to_thread(_server, split, options.timeout)
    return facts


async def _stream(store: Store, topic: str) -> list[Fact]:
    place = f"stream {stream_name(store.prefix, topic)}"
    asked = time.time()
    info = await store.stream(topic)
    if info is None:
        return [Fact("stream.exists", False, place)]
    config, state, cluster = info["config"], info["state"], info.get("cluster") or {}
    current = 1 + sum(bool(peer.get("current")) for peer in cluster.get("replicas") or [])
    facts = [
        Fact("stream.exists", True, place),
        Fact("stream.replicas", config["num_replicas"], place),
        Fact("stream.current", current, place),
        *(Fact(f"stream.{name}", config[name], place) for name in ("storage", "discard", "retention", "max_bytes")),
        Fact("stream.max_age", config["max_age"] / _NANO, place),
        Fact("stream.duplicate_window", config["duplicate_window"] / _NANO, place),
        Fact("stream.bytes", state["bytes"], place),
    ]
    if state["messages"]:
        facts.append(Fact("stream.oldest", _moment(state["first_ts"]), place))
    if "ts" in info:
        facts.append(clock_ahead(place, _moment(info["ts"]), asked))
    return facts


async def _consumer(store: Store, options: NatsOptions, topic: str, group: str) -> list[Fact]:
    place = f"group {group} of {topic}"
    info = await store.group(topic, group)
    if info is None:
        return [Fact("lease", options.lease or LEASE, place)]
    config = info["config"]
    return [
        Fact("lease", config.get("ack_wait", 0) / _NANO, place),
        Fact("consumer.max_ack_pending", config.get("max_ack_pending", -1), place),
        Fact("consumer.max_deliver", config.get("max_deliver", -1), place),
        Fact("consumer.redelivered", info.get("num_redelivered", 0), place),
    ]


def _server(monitor: SplitResult | None, timeout: float) -> list[Fact]:
    if monitor is None:
        return [unknown("server.sync_interval", "the server", _NO_MONITOR)]
    place = f"{monitor.hostname}:{monitor.port or 80}"
    asked = time.time()
    try:
        found = _get(f"{monitor.scheme}://{monitor.netloc}/varz", timeout)
        config = found["jetstream"]["config"]
        synced = 0.0 if config.get("sync_always") else config["sync_interval"] / _NANO
        now = _moment(found["now"])
    except (OSError, URLError, ValueError, KeyError, TypeError) as error:
        why = f"{place} does not answer as the monitoring port of a NATS server with JetStream does: {error}"
        return [unknown("server.sync_interval", place, why)]
    return [Fact("server.sync_interval", synced, place), clock_ahead(place, now, asked)]


def _get(url: str, timeout: float) -> Any:
    with urlopen(Request(url), timeout=timeout) as answer:  # noqa: S310 - the scheme is checked by the caller
        return json.loads(answer.read(_LARGEST))


def _moment(text: str) -> float:
    """Seconds since the epoch of a time in RFC 3339, which Go writes to the nanosecond."""
    return datetime.fromisoformat(_FRACTION.sub(r"\1", text)).timestamp()
