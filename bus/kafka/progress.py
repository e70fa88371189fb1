"""How far a group has come in one partition, and how that is written into the commit of its offset.

Kafka stores per group and partition one offset, and a text beside it. The offset is that of the oldest message not
settled. The text says of every message behind it whether it is settled, else how often it was delivered: so a message
settled out of order never comes again, and the deliveries to consumers that died are counted.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable

__all__ = ["LIMIT", "WINDOW", "Progress", "decode"]

#: Offsets from the oldest unsettled message on within which a partition is read. It keeps the text within ``LIMIT``.
WINDOW = 16_384
#: Characters of the text; a broker takes 4,096 (``offset.metadata.max.bytes``).
LIMIT = 4000
_FORM = "1"
_SETTLED = 15
_MOST = 14
_DONE = bytes([_SETTLED])


def decode(text: str | None) -> bytes:
    """One byte per offset from the committed one on: 15 = settled, else deliveries so far. Empty if it is not ours."""
    if not text or text[0] != _FORM:
        return b""
    try:
        opened = zlib.decompressobj()
        return opened.decompress(base64.b64decode(text[1:], validate=True), 2 * WINDOW)
    except (ValueError, binascii.Error, zlib.error):
        return b""


class Progress:
    """What became of the messages of one partition. ``base`` is the committed offset, ``None`` if there is none."""

    def __init__(self, base: int | None = None, text: str | None = None) -> None:
        self._fresh = base is None
        #: One byte for each offset from ``_start`` on, as :func:`decode` has them, of the messages seen.
        self._start = base or 0
        self._states = bytearray()
        #: States, told by the text, of messages not seen yet.
        self._told: dict[int, int] = {}
        for number, state in enumerate(decode(text) if base is not None else b""):
            if state:
                self._told[self._start + number] = state

    @property
    def _next(self) -> int:
        return self._start + len(self._states)

    @property
    def oldest(self) -> int:
        """The offset to commit: of the oldest message not settled."""
        states = self._states
        if states and states[0] == _SETTLED:
            done = len(states) - len(states.lstrip(_DONE))
            del states[:done]
            self._start += done
        return self._start

    @property
    def width(self) -> int:
        """How far the newest message seen is from the oldest one not settled."""
        return self._next - self.oldest

    def see(self, offset: int) -> bool:
        """A message arrived, in order. False if it is settled already."""
        states = self._states
        if offset == self._start + len(states) and not self._told and not self._fresh:
            states.append(0)
            return True
        if offset < self._next and not self._fresh:
            # The topic was made anew: what was known is of other messages.
            self._start = offset
            self._told.clear()
            states.clear()
        self._fresh = False
        self.skip(offset)
        state = self._told.pop(offset, 0)
        states.append(state)
        return state != _SETTLED

    def skip(self, offset: int) -> None:
        """No message before ``offset`` is left to come: those missing were deleted, or are marks of transactions."""
        missing = offset - self._next
        if missing > 0:
            for gone in [each for each in self._told if each < offset]:
                del self._told[gone]
            if self.width:
                self._states.extend(_DONE * missing)
            else:
                self._start = offset

    def deliver(self, offsets: Iterable[int]) -> list[int]:
        """Count a delivery of each, and return how many each had; 1 of a message whose topic was made anew since."""
        states, start = self._states, self._start
        end = start + len(states)
        counts = []
        for offset in offsets:
            if start <= offset < end:
                count = states[offset - start] + 1
                states[offset - start] = count if count < _MOST else _MOST
                counts.append(count)
            else:
                counts.append(1)
        return counts

    def take_back(self, offset: int) -> None:
        """A delivery does not count: the message was handed back unbegun."""
        at = offset - self._start
        if 0 <= at < len(self._states) and 0 < self._states[at] <= _MOST:
            self._states[at] -= 1

    def settle(self, offsets: Iterable[int]) -> None:
        """These messages are done with."""
        states, start = self._states, self._start
        end = start + len(states)
        for offset in offsets:
            if start <= offset < end:
                states[offset - start] = _SETTLED

    def encode(self, limit: int = LIMIT) -> tuple[int, str]:
        """What to commit: an offset, and a text of at most ``limit`` characters.

        What does not fit is left out, beginning with the counts and then from the newest message on: those may be
        delivered again though they are settled, and none is lost.
        """
        base = self.oldest
        states = bytes(self._states)
        if self._told:
            told = bytearray(max(self._told) + 1 - self._next)
            for offset, state in self._told.items():
                told[offset - self._next] = state
            states += told
        kept = states.rstrip(b"\0")
        text = _pack(kept)
        if len(text) > limit:
            kept = bytes(state if state == _SETTLED else min(state, 1) for state in kept)
            text = _pack(kept)
        while len(text) > limit:
            kept = kept[: len(kept) // 2].rstrip(b"\0")
            text = _pack(kept)
        return base, text


def _pack(states: bytes) -> str:
    return _FORM + base64.b64encode(zlib.compress(states, 1)).decode() if states else ""
