"""A proxy to a Kafka broker that refuses one write as a broker does that has not heard of a topic yet."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from tests.faults.proxy import Direction, Proxy

__all__ = ["RefusingProxy"]

#: Of a Produce request (the table of API keys in Kafka's protocol guide).
_PRODUCE = 0
#: Seconds that a refusal is kept at most for a second write to follow.
_KEPT = 2.0


class RefusingProxy(Proxy):
    """Refuses the next write to a topic, and lets those pass that follow on its heels.

    The broker is asked to write to a topic that is not there, and its answer is told of the one that was meant. It is
    kept for a moment, so that a client which does not wait for answers has sent more by then.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._topic = self._nowhere = b""
        self._followed = asyncio.Event()
        #: Writes to the topic that were refused, and that passed.
        self.refused, self.passed = 0, 0

    def refuse_a_write(self, topic: str) -> None:
        """Refuse the next write to this topic."""
        self._topic, self._nowhere = topic.encode(), b"-" * len(topic)
        self._followed.clear()
        self.refused = self.passed = 0

    async def _read(self, reader: asyncio.StreamReader, direction: Direction) -> bytes:
        """A request or an answer, with its length before it."""
        try:
            (length,) = struct.unpack(">i", await reader.readexactly(4))
            frame = await reader.readexactly(length)
        except asyncio.IncompleteReadError:
            return b""
        frame = await (self._asked if direction is Direction.TO_SERVER else self._answered)(frame)
        return struct.pack(">i", len(frame)) + frame

    async def _asked(self, frame: bytes) -> bytes:
        (kind,) = struct.unpack_from(">h", frame)
        if kind != _PRODUCE or not self._topic or self._topic not in frame:
            return frame
        if not self.refused:
            self.refused = 1
            return frame.replace(self._topic, self._nowhere)
        self.passed += 1
        self._followed.set()
        return frame

    async def _answered(self, frame: bytes) -> bytes:
        if not self._nowhere or self._nowhere not in frame:
            return frame
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._followed.wait(), _KEPT)
        return frame.replace(self._nowhere, self._topic)
