"""The task bus: one contract over many message buses.

    async with bus.connect("sqlite:work.db") as b:
        producer = await b.producer()
        await producer.publish("hello-world", b'{"type":"hello-world","task":"world"}')

``bus.contract`` states the rules, ``bus.errors`` the errors, ``bus.conformance`` is the suite every adapter passes.
"""

from bus.capabilities import Capabilities, Durability, Order
from bus.contract import Bus, Consumer, Delivery, Depth, Health, Message, Peeked, Producer
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
from bus.registry import Adapter, adapters, connect, load
from bus.secret import Secret
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
