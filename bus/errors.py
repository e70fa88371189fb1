"""Every error of this toolkit that can leave the bus layer, in one tree.

    TaskbusError                    root of everything taskbus raises (task.errors adds its branches)
    └── BusError                    something about a bus; carries topic, and says what to do
        ├── BusURLError             the URL cannot be used: unknown scheme, wrong option, bad path
        │   └── MissingExtraError   the adapter's client library is not installed
        ├── BadNameError            a topic or group name this bus does not take
        ├── UnsupportedError        this bus cannot do what was asked (see its capabilities)
        ├── ClosedError             used after close
        ├── TooLargeError           the message is over the bus's size limit; nothing was sent
        ├── UnauthorisedError       the bus refuses these credentials or this operation
        ├── NoSuchTopicError        the topic does not exist and may not be created
        ├── CorruptError            stored data cannot be read back
        ├── OutputClosedError       whoever read our output has gone (a closed pipe)
        ├── UnreachableError        the bus does not answer; worth trying again      (transient)
        ├── FullError               no room: disk, quota or memory; worth trying again (transient)
        ├── UnconfirmedError        sent, but the confirmation did not come: it may be there (transient)
        ├── LeaseLostError          the message was handed to somebody else meanwhile
        └── WrongRevisionError      a key of a store holds something else meanwhile

``transient`` says whether the same call may succeed later without anybody changing anything but the bus.
No exception of a client library leaves an adapter; each is mapped onto this tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from bus.contract import Delivery

__all__ = [
    "BadNameError",
    "BusError",
    "BusURLError",
    "ClosedError",
    "CorruptError",
    "FullError",
    "LeaseLostError",
    "MissingExtraError",
    "NoSuchTopicError",
    "OutputClosedError",
    "TaskbusError",
    "TooLargeError",
    "UnauthorisedError",
    "UnconfirmedError",
    "UnreachableError",
    "UnsupportedError",
    "WrongRevisionError",
]


class TaskbusError(Exception):
    """Root of every error taskbus raises on purpose. Its text is written for the person who must act on it."""


class BusError(TaskbusError):
    """Something about a bus went wrong."""

    #: Whether the same call may succeed later without a change by the caller.
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, topic: str | None = None) -> None:
        super().__init__(message)
        self.topic = topic


class BusURLError(BusError):
    """The bus URL cannot be used as written."""


class MissingExtraError(BusURLError):
    """The client library behind this scheme is not installed; the text names the extra that brings it."""

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class BadNameError(BusError):
    """A topic or group name that this bus does not take. Raised before anything is sent."""


class UnsupportedError(BusError):
    """This bus cannot do what was asked; its ``capabilities`` say so."""


class ClosedError(BusError):
    """The bus, producer or consumer was used after ``close``."""


class TooLargeError(BusError):
    """The message is larger than the bus takes. Nothing of the call was sent."""

    def __init__(self, message: str, *, topic: str | None = None, size: int, limit: int) -> None:
        super().__init__(message, topic=topic)
        self.size = size
        self.limit = limit


class UnauthorisedError(BusError):
    """The bus refuses these credentials, or refuses them this operation."""


class NoSuchTopicError(BusError):
    """The topic does not exist and this bus or configuration does not create it."""


class CorruptError(BusError):
    """Data the bus stored cannot be read back."""


class OutputClosedError(BusError):
    """The reader of our output closed it (``taskbus … | head``). Nothing more can be delivered there."""


class UnreachableError(BusError):
    """The bus does not answer."""

    transient: ClassVar[bool] = True


class FullError(BusError):
    """The bus has no room left. Nothing of the call is visible to readers."""

    transient: ClassVar[bool] = True


class UnconfirmedError(BusError):
    """The bus did not confirm in time. The messages may or may not be there: publish again, duplicates are allowed."""

    transient: ClassVar[bool] = True


class LeaseLostError(BusError):
    """The lease on these deliveries ended and the bus gave them to another consumer.

    Every other delivery of the same call was settled.
    """

    def __init__(self, message: str, *, deliveries: Sequence[Delivery], topic: str | None = None) -> None:
        super().__init__(message, topic=topic)
        self.deliveries = tuple(deliveries)


class WrongRevisionError(BusError):
    """The key of a :class:`bus.kv.KeyValue` does not hold what was to be replaced: somebody else was first."""
