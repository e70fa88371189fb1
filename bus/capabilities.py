"""What a bus can and cannot do, declared per adapter and asserted by ``bus.conformance``."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

__all__ = ["Capabilities", "Durability", "Order"]


class Durability(enum.IntEnum):
    """What a *confirmed* publish survives."""

    D0 = 0  #: lost with the process
    D1 = 1  #: survives a clean restart of the bus only
    D2 = 2  #: survives kill -9 of the bus process (or of any client, where there is no bus process)
    D3 = 3  #: survives power loss of one host
    D4 = 4  #: survives correlated power loss


class Order(enum.Enum):
    """The order in which one consumer with one message in flight receives, in the absence of nacks and crashes."""

    NONE = "none"
    KEY = "key"  #: messages with the same key keep their order
    TOPIC = "topic"  #: all messages of the topic keep their order


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The declared abilities of one adapter. Times are seconds, sizes bytes."""

    #: Tier of a confirmed publish.
    durability: Durability
    #: Different groups of a topic each receive every message.
    groups: bool = False
    #: Several consumers of one group share its messages.
    shared: bool = False
    #: Consumers and producers may live in different processes.
    processes: bool = False
    #: The source ends: ``receive`` returns nothing more once everything was yielded and settled.
    finite: bool = False
    #: A message published before any consumer of the topic existed is delivered to the first group.
    retained: bool = False
    #: A group created later receives what is still stored of the past.
    replay: bool = False
    #: An unsettled message comes back when its consumer dies or lets the lease pass.
    lease: bool = False
    #: Messages are assigned to consumers before they ask: an idle one cannot take what waits behind a busy one.
    partitioned: bool = False
    #: The longest a lease can be extended to in all; ``None`` = without limit. Only with ``lease``.
    lease_ceiling: float | None = None
    #: ``Message.delay`` is honoured by the bus. The longest one; ``None`` = not at all, ``inf`` = without limit.
    publish_delay: float | None = None
    #: ``nack(delay=…)`` is honoured. The longest one; ``None`` = not at all (redelivered at once).
    nack_delay: float | None = None
    #: ``Delivery.attempt`` counts deliveries, those of crashed consumers included.
    attempts: bool = False
    #: A released delivery counts as an attempt like any other. Only with ``attempts``.
    release_counts: bool = False
    #: ``Delivery.history`` holds the reasons given to earlier nacks.
    history: bool = False
    #: Order of delivery.
    order: Order = Order.NONE
    #: ``Message.id`` suppresses a second publish within this many seconds; ``None`` = not at all.
    dedupe: float | None = None
    #: ``Consumer.finish`` publishes and acknowledges in one atomic step.
    atomic_finish: bool = False
    #: ``Bus.consumer(topic, None)``: every such consumer receives everything published while it is open.
    broadcast: bool = False
    #: ``Bus.depth`` works.
    depth: bool = False
    #: ``Depth`` counts what was nacked, released or delayed as such. Where not, that may be part of ``in_flight`` until
    #: it is delivered again, and only the total is exact. Only with ``depth``.
    depth_tells_delayed: bool = False
    #: ``Bus.peek`` works.
    peek: bool = False
    #: ``Bus.topics`` works.
    topics: bool = False
    #: Bodies must be one line of text: not blank, no newline inside, no carriage return at the end. JSON always is.
    text_lines: bool = False
    #: Largest body; ``None`` = bounded only by ``max_size`` of the connection, if at all.
    max_size: int | None = None

    def describe(self) -> dict[str, object]:
        """The capabilities as plain JSON values, for ``taskbus buses`` and documentation."""
        out: dict[str, object] = {}
        for field in fields(self):
            value: object = getattr(self, field.name)
            if isinstance(value, Durability):
                value = value.name
            elif isinstance(value, Order):
                value = value.value
            elif value == float("inf"):
                value = "unlimited"
            out[field.name] = value
        return out
