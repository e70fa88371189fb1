"""The task bus: one contract over many message buses.

    async with bus.connect("sqlite:work.db") as b:
        producer = await b.producer()
        await producer.publish("hello-world", b'{"type":"hello-world","task":"world"}')

``bus.contract`` states the rules, ``bus.errors`` the errors, ``bus.conformance`` is the suite every adapter passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bus.errors import (
    BadNameError,
    BusError,
    BusURLError,
    ClosedError,
    CorruptError,
    FullError,
    LeaseLostError,
    MissingExtraError,
    NoSuchTopicError,
    OutputClosedError,
    TaskbusError,
    TooLargeError,
    UnauthorisedError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
)
from bus.names import check_group, check_topic, dead_topic
from bus.secret import Secret

if TYPE_CHECKING:
    from bus.capabilities import Capabilities, Durability, Order
    from bus.contract import Bus, Consumer, Delivery, Depth, Health, Message, Peeked, Producer
    from bus.registry import Adapter, adapters, connect, load
    from bus.url import BusURL, option, parse_options, parse_url

__all__ = [
    "Adapter",
    "BadNameError",
    "Bus",
    "BusError",
    "BusURL",
    "BusURLError",
    "Capabilities",
    "ClosedError",
    "Consumer",
    "CorruptError",
    "Delivery",
    "Depth",
    "Durability",
    "FullError",
    "Health",
    "LeaseLostError",
    "Message",
    "MissingExtraError",
    "NoSuchTopicError",
    "Order",
    "OutputClosedError",
    "Peeked",
    "Producer",
    "Secret",
    "TaskbusError",
    "TooLargeError",
    "UnauthorisedError",
    "UnconfirmedError",
    "UnreachableError",
    "UnsupportedError",
    "adapters",
    "check_group",
    "check_topic",
    "connect",
    "dead_topic",
    "load",
    "option",
    "parse_options",
    "parse_url",
]

#: Loaded when first used, so that `import task`, which needs the errors only, stays quick.
_LAZY = {
    "bus.capabilities": ("Capabilities", "Durability", "Order"),
    "bus.contract": ("Bus", "Consumer", "Delivery", "Depth", "Health", "Message", "Peeked", "Producer"),
    "bus.registry": ("Adapter", "adapters", "connect", "load"),
    "bus.url": ("BusURL", "option", "parse_options", "parse_url"),
}


def __getattr__(name: str) -> Any:
    import importlib

    for module, names in _LAZY.items():
        if name in names:
            found = getattr(importlib.import_module(module), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'bus' has no attribute {name!r}")
