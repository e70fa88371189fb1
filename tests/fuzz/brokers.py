"""What brokers send: frames, headers, replies and metadata."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

from bus import UnreachableError
from bus.kafka.copies import Origin, read_origin, write_origin
from bus.kafka.names import is_user_topic, retry_group
from bus.kafka.progress import Progress
from bus.nats import names as nats_names
from bus.nats import wire
from bus.nats.link import Link
from bus.nsq import protocol
from bus.nsq.nodes import Nodes
from bus.nsq.options import read_options
from bus.pubsub.names import Names, decode_labels, encode_labels
from bus.url import parse_url
from tests.fuzz.files import _cut
from tests.fuzz.target import Target

__all__ = ["TARGETS"]


def _frame(kind: int, data: bytes) -> bytes:
    return (4 + len(data)).to_bytes(4, "big") + kind.to_bytes(4, "big") + data


_NSQ = (
    _frame(0, b"OK") + _frame(0, b"_heartbeat_") + _frame(1, b"E_FIN_FAILED FIN 0123456789abcdef failed"),
    _frame(2, (1).to_bytes(8, "big") + (2).to_bytes(2, "big") + b"0123456789abcdef" + b'{"type":"t"}') * 3,
)


def _nsq(data: bytes) -> None:
    found: list[protocol.Frame] = []
    frames = protocol.Frames()
    try:
        expected = protocol.Frames().feed(data)
    except protocol.NsqProtocolError:
        expected = None
    for piece in _cut(data):
        found += frames.feed(piece)
    if expected is not None:
        assert found == expected


def _answer(body: bytes, head: bytes = b"HTTP/1.0 200 OK\r\nDate: Sat, 21 Nov 2026 14:00:00 GMT\r\n") -> bytes:
    return head + b"Content-Type: application/json\r\n\r\n" + body


_NODES = json.dumps(
    {"producers": [{"broadcast_address": "10.0.0.1", "tcp_port": 4150, "http_port": 4151, "topics": ["t"]}]}
).encode()
_STATS = json.dumps(
    {"topics": [{"topic_name": "t", "depth": 3, "channels": [{"channel_name": "c", "depth": 1, "in_flight_count": 0}]}]}
).encode()


class _Writer:
    """Of a connection on which nothing need be sent."""

    def __init__(self) -> None:
        self.transport = self

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


def _asking(url: str, ask: Callable[[Nodes], Awaitable[object]], head: bytes = b"") -> Callable[[bytes], None]:
    """Something that asks over HTTP, and is answered with the input."""

    def read(data: bytes) -> None:
        async def connection(*_: object, **__: object) -> tuple[asyncio.StreamReader, _Writer]:
            reader = asyncio.StreamReader()
            reader.feed_data(head + data)
            reader.feed_eof()
            return reader, _Writer()

        async def main() -> None:
            hosts = (("127.0.0.1", 4150),) if url.startswith("nsq:/") else ()
            await ask(Nodes(hosts, read_options(parse_url(url)), None))

        with patch.object(asyncio, "open_connection", connection):
            asyncio.run(main())

    return read


async def _find(nodes: Nodes) -> None:
    await nodes.ask()
    await nodes.stats("t")


async def _look(nodes: Nodes) -> None:
    await nodes.stats("t")
    await nodes.channels(("127.0.0.1", 4150), "t")


_NATS = (
    b'INFO {"server_id":"x","max_payload":1048576,"headers":true,"nonce":"abc"}\r\nPING\r\nPONG\r\n+OK\r\n',
    b"MSG _INBOX.x.1 1 5\r\nhello\r\nMSG a.b 2 $JS.ACK.s.c.1.2.3.4.0 2\r\n{}\r\n",
    b"HMSG a.b 1 22 24\r\nNATS/1.0\r\nKey: a%20\r\n\r\n{}\r\nHMSG a 1 _R 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"-ERR 'Stale Connection'\r\n",
)


def _nats(data: bytes) -> None:
    def run(pieces: list[bytes]) -> list[object]:
        found: list[object] = []
        parser = wire.Parser(lambda *message: found.append(message), found.append)
        for piece in pieces:
            parser.feed(piece)
        return found

    try:
        expected = run([data])
    except ValueError:
        expected = None
    found = run(_cut(data))
    if expected is not None:
        assert found == expected


def _link(data: bytes) -> None:
    """A client takes what a server sends and either goes on or breaks off; it raises nothing."""

    async def main() -> None:
        def received(number: int, subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
            wire.status(head)

        link = Link(_ADDRESS, received, lambda _: None, lambda *_: None)
        for piece in _cut(data):
            link.data_received(piece)
        link.info.get("nonce", "")
        link.connection_lost(None)

    asyncio.run(main())


class _Address:
    host, port = "127.0.0.1", 4222

    def __iter__(self) -> Any:
        return iter((self.host, self.port))

    def __str__(self) -> str:
        return "127.0.0.1:4222"


_ADDRESS: Any = _Address()


def _origin_seeds() -> tuple[bytes, ...]:
    headers = write_origin(Origin("0:17", 3, 1.75e9, ("no", "still no")))
    return (b"\n".join(name.encode() + b"=" + (value if isinstance(value, bytes) else b"") for name, value in headers),)


def _origin(data: bytes) -> None:
    """Headers, one a line."""
    headers: list[tuple[str, str | bytes | None]] = []
    for line in data.split(b"\n"):
        name, mark, value = line.partition(b"=")
        headers.append((name.decode("latin-1"), value if mark else None))
    origin = read_origin(headers, "1:2")
    assert read_origin(write_origin(origin), "1:2").id == origin.id


def _progress_seeds() -> tuple[bytes, ...]:
    progress = Progress(100)
    for offset in range(100, 140):
        progress.see(offset)
        progress.deliver([offset])
        if offset % 3 == 1:
            progress.settle([offset])
    return (b"", b"!!", progress.encode()[1].encode())


def _progress(data: bytes) -> None:
    progress = Progress(100, data.decode("latin-1"))
    base, text = progress.encode()
    assert Progress(base, text).encode() == (base, text)
    for offset in range(100, 110):
        if progress.see(offset):
            progress.deliver([offset])
            progress.settle([offset])
    assert progress.oldest >= 100


def _kafka_names(data: bytes) -> None:
    name = data.decode("utf-8", "replace")
    is_user_topic(name)
    retry_group(name, "topic")


def _pubsub(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    names = Names("p", "taskbus")
    names.topic_of(text)
    names.group_of("t", text)
    parts = text.split("=")
    decode_labels({f"group-{number}": part for number, part in enumerate(parts)})
    group = "".join(char for char in text if char.isascii() and (char.isalnum() or char in "._-"))[:64]
    assert decode_labels(encode_labels(group)) == group


def _nats_names(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    nats_names.stream_topic("taskbus", text)
    nats_names.decode(text)


TARGETS = (
    Target("nsq-frames", _NSQ, _nsq, (protocol.NsqProtocolError,)),
    Target(
        "nsq-lookup",
        (_answer(_NODES), _answer(b"", b"HTTP/1.1 404 Not Found\r\n")),
        _asking("nsq:?lookupd=http://127.0.0.1:4161", _find),
        (UnreachableError,),
        cost=10,
    ),
    Target(
        "nsq-stats",
        (_STATS, b'{"topics":null}', b""),
        _asking("nsq://127.0.0.1:4150", _look, _answer(b"")),
        (UnreachableError,),
        cost=10,
    ),
    Target("nats-wire", _NATS, _nats, (ValueError,)),
    Target("nats-link", _NATS, _link, (), cost=10),
    Target("nats-names", (b"taskbus-a", b"taskbus_a_2e_b"), _nats_names, (ValueError,)),
    Target("kafka-headers", _origin_seeds(), _origin, ()),
    Target("kafka-progress", _progress_seeds(), _progress, ()),
    Target("kafka-names", (b"taskbus-retry-5-topic-group", b"__consumer_offsets", b"a.b"), _kafka_names, ()),
    Target(
        "pubsub-names",
        (b"projects/p/topics/taskbus-t", b"projects/p/subscriptions/taskbus-t~g", b"a_2eb=c"),
        _pubsub,
        (),
    ),
)
