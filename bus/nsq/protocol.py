"""The bytes of NSQ's protocol: commands out, frames in. https://nsq.io/clients/tcp_protocol_spec.html

Constants, packing and the reading of a frame are nsq-py's; where frames begin and end is ours, as its reader blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from nsq.constants import FIN, MAGIC_V2, MPUB, NOP, PUB, RDY, REQ, SUB, TOUCH
from nsq.response import Error, Message, Response
from nsq.util import pack

__all__ = ["MAGIC_V2", "Error", "Frames", "Message", "NsqProtocolError", "Response"]
__all__ += ["auth", "close", "finish", "identify", "nop", "publish", "ready", "requeue", "subscribe", "touch"]

#: No frame of nsqd is larger than its largest message; this is only to recognise a peer that is no nsqd.
_LARGEST = 1024**3


class NsqProtocolError(Exception):
    """The peer does not speak this protocol."""


class Frames:
    """Cuts what is read into frames."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: bytes) -> list[Response]:
        """The frames that are whole now. Raises NsqProtocolError."""
        left = self._left
        left += data
        found: list[Response] = []
        start = 0
        while len(left) - start >= 4:
            (size,) = struct.unpack_from(">l", left, start)
            if not 4 <= size <= _LARGEST:
                raise NsqProtocolError(f"a frame of {size} bytes")
            if len(left) - start - 4 < size:
                break
            try:
                found.append(Response.from_raw(None, bytes(left[start + 4 : start + 4 + size])))
            except (struct.error, TypeError) as error:
                raise NsqProtocolError(str(error)) from None
            start += 4 + size
        del left[:start]
        return found


def _line(*words: bytes) -> bytes:
    return b" ".join(words) + b"\n"


def identify(body: bytes) -> bytes:
    return _line(b"IDENTIFY") + bytes(pack(body))


def auth(secret: bytes) -> bytes:
    return _line(b"AUTH") + bytes(pack(secret))


def subscribe(topic: str, channel: str) -> bytes:
    return _line(SUB, topic.encode(), channel.encode())


def publish(topic: str, bodies: Sequence[bytes], delay: float = 0.0) -> bytes:
    """PUB for one, MPUB for several, DPUB for one with a delay of ``delay`` seconds."""
    name = topic.encode()
    if delay > 0:
        return _line(b"DPUB", name, milliseconds(delay)) + bytes(pack(bodies[0]))
    if len(bodies) == 1:
        return _line(PUB, name) + bytes(pack(bodies[0]))
    return _line(MPUB, name) + bytes(pack(bodies))


def ready(count: int) -> bytes:
    return _line(RDY, b"%d" % count)


def finish(id: bytes) -> bytes:
    return _line(FIN, id)


def requeue(id: bytes, delay: float = 0.0) -> bytes:
    return _line(REQ, id, milliseconds(delay))


def touch(id: bytes) -> bytes:
    return _line(TOUCH, id)


def nop() -> bytes:
    return _line(NOP)


def close() -> bytes:
    return _line(b"CLS")


def milliseconds(seconds: float) -> bytes:
    """Whole ones, rounded up: nothing comes too early."""
    return b"%d" % -int(-seconds * 1000 // 1)
