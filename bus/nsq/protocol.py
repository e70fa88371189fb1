"""The bytes of NSQ's protocol: commands out, frames in. https://nsq.io/clients/tcp_protocol_spec.html

Constants are nsq-py's; where frames begin and end is ours, as its reader blocks, and so are the messages, as making its
objects takes longer than everything else that is done to receive one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from nsq.constants import (
    FIN,
    FRAME_TYPE_ERROR,
    FRAME_TYPE_MESSAGE,
    FRAME_TYPE_RESPONSE,
    MAGIC_V2,
    MPUB,
    NOP,
    PUB,
    RDY,
    REQ,
    SUB,
    TOUCH,
)
from nsq.util import pack

__all__ = ["MAGIC_V2", "Error", "Frame", "Frames", "Message", "NsqProtocolError", "Response"]
__all__ += [
    "announce",
    "auth",
    "close",
    "finish",
    "identify",
    "nop",
    "publish",
    "ready",
    "requeue",
    "subscribe",
    "touch",
]

#: No frame of nsqd is larger than its largest message; this is only to recognise a peer that is no nsqd.
_LARGEST = 1024**3
_SIZE = struct.Struct(">l")
_FRAME = struct.Struct(">ll")
_MESSAGE = struct.Struct(">qH16s")


class NsqProtocolError(Exception):
    """The peer does not speak this protocol."""


class Message(NamedTuple):
    """One message; ``timestamp`` is when nsqd took it, in nanoseconds since 1970."""

    timestamp: int
    attempts: int
    id: bytes
    body: bytes


class Response(NamedTuple):
    """An answer, or a heartbeat."""

    data: bytes


class Error(NamedTuple):
    """A refusal."""

    data: bytes


Frame = Message | Response | Error


class Frames:
    """Cuts what is read into frames."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 4

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises NsqProtocolError."""
        self._pieces.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        if len(self._pieces) > 1:
            data = b"".join(self._pieces)
        found: list[Frame] = []
        start, end = 0, len(data)
        unpack, unpack_message = _FRAME.unpack_from, _MESSAGE.unpack_from
        self._need = 4
        while end - start >= 8:
            size, kind = unpack(data, start)
            stop = start + 4 + size
            if stop > end or size < 4:
                break
            if kind == FRAME_TYPE_MESSAGE:
                if size < 30:
                    raise NsqProtocolError(f"a message of {size} bytes")
                timestamp, attempts, id = unpack_message(data, start + 8)
                found.append(Message(timestamp, attempts, id, data[start + 34 : stop]))
            elif kind == FRAME_TYPE_RESPONSE:
                found.append(Response(data[start + 8 : stop]))
            elif kind == FRAME_TYPE_ERROR:
                found.append(Error(data[start + 8 : stop]))
            else:
                raise NsqProtocolError(f"a frame of type {kind}")
            start = stop
        if end - start >= 4:
            (size,) = _SIZE.unpack_from(data, start)
            if not 4 <= size <= _LARGEST:
                raise NsqProtocolError(f"a frame of {size} bytes")
            self._need = 4 + size
        self._pieces = [data[start:]] if start < end else []
        self._have = end - start
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
    size, sizes = _SIZE.pack, list(map(len, bodies))
    parts = [_line(MPUB, name) + size(4 + 4 * len(bodies) + sum(sizes)) + size(len(bodies))] * (1 + 2 * len(bodies))
    parts[1::2] = map(size, sizes)
    parts[2::2] = bodies
    return b"".join(parts)


def announce(topic: str, size: int) -> bytes:
    """A PUB without its message, of ``size`` bytes."""
    return _line(PUB, topic.encode()) + _SIZE.pack(size)


def ready(count: int) -> bytes:
    return _line(RDY, b"%d" % count)


def finish(id: bytes) -> bytes:
    return b"%b %b\n" % (FIN, id)


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
