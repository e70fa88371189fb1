"""The client protocol of NATS: commands to bytes, and bytes to messages and lines.

https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["CONFIRM", "Parser", "Received", "header", "publish", "status", "subscribe", "unsubscribe"]

#: Called with subscription number, subject, reply subject, header block and body.
Received = Callable[[int, bytes, bytes, bytes, bytes], None]

#: A line that asks the server to answer when it has done all before it.
CONFIRM = b"PING\r\n"
_VERSION = b"NATS/1.0"
#: Longest line taken; INFO of a large cluster is the longest there is.
_LINE = 1024**2
#: Largest message taken. The server's own limit is lower.
_MESSAGE = 128 * 1024**2


def publish(subject: bytes, body: bytes, reply: bytes = b"", head: bytes = b"") -> bytes:
    """The command that publishes one message. ``head`` is what :func:`header` made."""
    if head:
        size = len(head)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(body), head, body)
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(body), body)


def header(fields: dict[str, str]) -> bytes:
    """The header block for these fields, whose names and values are printable ASCII."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return b"%b\r\n%b\r\n" % (_VERSION, lines.encode("ascii"))


def subscribe(subject: bytes, number: int) -> bytes:
    """The command that asks for what is sent to ``subject``."""
    return b"SUB %b %d\r\n" % (subject, number)


def unsubscribe(number: int) -> bytes:
    """The command that ends a subscription."""
    return b"UNSUB %d\r\n" % number


def status(head: bytes) -> bytes:
    """The three digits with which a server says something instead of sending a message; empty if it is a message."""
    return head[9:12] if head[8:9] == b" " else b""


class Parser:
    """Takes bytes as they come and calls back for each message and each other line.

    Raises ValueError for what is not the protocol; nothing can be read after that.
    """

    def __init__(self, received: Received, line: Callable[[bytes], None]) -> None:
        self._received = received
        self._line = line
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take these bytes."""
        if self._have:
            # A message that is larger than what one read brings is put together once, when all of it is there.
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        try:
            at = self._parse(data)
        except IndexError:
            raise ValueError("a message that does not say for which subscription it is") from None
        self._have = len(data) - at
        if self._have:
            self._chunks.append(data[at:])

    def _parse(self, data: bytes) -> int:
        """Where the first message or line begins that is not whole. Sets how many bytes it needs at least."""
        at, size, received = 0, len(data), self._received
        while at < size:
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > _LINE:
                    raise ValueError("a line without an end")
                self._need = 0
                break
            kind = data[at : at + 4]
            if kind == b"HMSG":
                fields = data[at:end].split()
                length, total = int(fields[-2]), int(fields[-1])
                begin = end + 2
                stop = begin + total
                if not 0 < length <= total <= _MESSAGE:
                    raise ValueError("a message with impossible lengths")
                if stop + 2 > size:
                    self._need = stop + 2 - at
                    break
                body = begin + length
                reply = fields[3] if len(fields) == 6 else b""
                if data[stop : stop + 2] != b"\r\n":
                    raise ValueError("a message longer than was said")
                received(int(fields[2]), fields[1], reply, data[begin:body], data[body:stop])
                at = stop + 2
            elif kind == b"MSG ":
                fields = data[at:end].split()
                begin = end + 2
                total = int(fields[-1])
                stop = begin + total
                if not 0 <= total <= _MESSAGE:
                    raise ValueError("a message with an impossible length")
                if stop + 2 > size:
                    self._need = stop + 2 - at
                    break
                if data[stop : stop + 2] != b"\r\n":
                    raise ValueError("a message longer than was said")
                received(int(fields[2]), fields[1], fields[3] if len(fields) == 5 else b"", b"", data[begin:stop])
                at = stop + 2
            else:
                self._line(data[at:end])
                at = end + 2
        return at
