"""The producers of a file bus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bus.contract import Message, Producer
from bus.errors import ClosedError
from bus.lines.text import check_bodies
from bus.names import check_topic

if TYPE_CHECKING:
    from bus.file.bus import FileBus

__all__ = ["FileProducer"]


class FileProducer(Producer):
    """Appends to the files of topics, made as needed. What is published at the same time is written at once."""

    def __init__(self, bus: FileBus, max_size: int) -> None:
        #: The directory published to, by which a consumer knows a producer of its own bus.
        self.root = bus.layout.root
        self._bus = bus
        self._max_size = max_size
        self._known: set[str] = set()
        self._closed = False

    async def publish_many(self, messages: Sequence[Message]) -> None:
        self.check(messages)
        lines: dict[str, list[bytes]] = {}
        for message in messages:
            lines.setdefault(message.topic, []).append(message.body)
        if lines:
            await self._bus.append({topic: b"\n".join([*bodies, b""]) for topic, bodies in lines.items()})

    def check(self, messages: Sequence[Message]) -> None:
        """Raise what makes one of these unpublishable."""
        if self._closed:
            raise ClosedError("this producer is closed")
        for message in messages:
            if message.topic not in self._known:
                self._known.add(check_topic(message.topic))
        check_bodies(messages, "file", self._max_size)

    async def close(self) -> None:
        self._closed = True
        self._bus.forget(self)
