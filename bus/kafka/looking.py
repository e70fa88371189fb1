"""Reading pending messages without being a member of their group."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bus.contract import Peeked
from bus.kafka.copies import read_origin
from bus.kafka.store import Extent

__all__ = ["peek"]

_SETTLED = 15


def peek(given: dict[str, Any], extents: list[Extent], limit: int, timeout: float) -> list[Peeked]:
    """The oldest messages of these extents that are not settled. Blocks for up to ``timeout`` seconds."""
    wanted = {(extent.topic, extent.partition): extent for extent in extents if extent.start < extent.end}
    if not wanted or limit < 1:
        return []
    main = extents[0].topic
    found: list[tuple[int, bool, int, Peeked]] = []
    consumer = Consumer(given)
    try:
        consumer.assign([TopicPartition(name, number, extent.start) for (name, number), extent in wanted.items()])
        left = dict.fromkeys(wanted, limit)
        until = time.monotonic() + timeout
        while left and time.monotonic() < until:
            message = consumer.poll(0.1)
            if message is None:
                continue
            at = (message.topic() or "", message.partition() or 0)
            offset = message.offset() or 0
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            extent = wanted[at]
            if at in left and error is None and offset < extent.end:
                number = offset - extent.start
                state = extent.states[number] if number < len(extent.states) else 0
                if state != _SETTLED:
                    headers = message.headers() if at[0] != main else None
                    origin = read_origin(headers, f"{at[1]}:{offset}")
                    name = "in-flight" if state else "delayed" if origin.due > time.time() else "ready"
                    shown = Peeked(origin.id, message.value() or b"", name, origin.attempts + state)
                    found.append((message.timestamp()[1], at[0] != main, offset, shown))
                    left[at] -= 1
            if error is not None or offset + 1 >= extent.end or left.get(at) == 0:
                left.pop(at, None)
    finally:
        consumer.close()
    found.sort(key=lambda each: each[:3])
    return [shown for *_, shown in found[:limit]]
