"""The protocol of NATS: what is sent, and what is read of bytes that come in any pieces."""

from __future__ import annotations

import random

import pytest

from bus.nats import wire
from bus.nats.pull import HEARTBEAT, Pull

_STREAM = (
    b'INFO {"nonce":"x"}\r\n'
    b"MSG taskbus.a 7 5\r\nhello\r\n"
    b"PING\r\n"
    b"MSG taskbus.a 7 $JS.ACK.s.c.1.2.3.4.5 0\r\n\r\n"
    b"HMSG taskbus.b 8 reply 32 37\r\nNATS/1.0\r\nTaskbus-Key: a%20b\r\n\r\nhello\r\n"
    b"HMSG _INBOX.x 9 17 17\r\nNATS/1.0 404 \r\n\r\n\r\n"
    b"-ERR 'Authorization Violation'\r\n"
)
_READ = [
    b'INFO {"nonce":"x"}',
    (7, b"taskbus.a", b"", b"", b"hello"),
    b"PING",
    (7, b"taskbus.a", b"$JS.ACK.s.c.1.2.3.4.5", b"", b""),
    (8, b"taskbus.b", b"reply", b"NATS/1.0\r\nTaskbus-Key: a%20b\r\n\r\n", b"hello"),
    (9, b"_INBOX.x", b"", b"NATS/1.0 404 \r\n\r\n", b""),
    b"-ERR 'Authorization Violation'",
]


def _parser() -> tuple[wire.Parser, list[object]]:
    read: list[object] = []
    return wire.Parser(lambda *message: read.append(message), read.append), read


def _feed(parser: wire.Parser, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        parser.feed(data[start : start + size])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_what_comes_in_pieces_is_read_the_same(size: int) -> None:
    """However the bytes are cut, the same lines and messages come of them."""
    parser, read = _parser()
    _feed(parser, _STREAM, size)
    assert read == _READ


def test_a_message_may_hold_anything() -> None:
    """Bodies with line ends, commands and every byte are read as they are, also cut at random."""
    dice = random.Random(1)
    bodies = [b"\r\n", b"PING\r\nMSG a 1 3\r\n", bytes(range(256)), b"x" * 300_000]
    data = b"".join(b"MSG a 1 %d\r\n%b\r\n" % (len(body), body) for body in bodies)
    parser, read = _parser()
    start = 0
    while start < len(data):
        end = start + dice.randrange(1, 50_000)
        parser.feed(data[start:end])
        start = end
    assert read == [(1, b"a", b"", b"", body) for body in bodies]


@pytest.mark.parametrize(
    "data",
    [
        b"MSG a 1 x\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a 1 99999999999\r\n",
        b"MSG a x 1\r\na\r\n",
        b"HMSG a 1 9 5\r\n",
        b"HMSG a 1 0 5\r\n",
        b"HMSG 1\r\n",
        b"MSG 1\r\na\r\n",
        b"MSG a 1 1\r\nab\r\n",
        b"x" * 2_000_000,
    ],
)
def test_what_is_not_the_protocol(data: bytes) -> None:
    """Garbage is a ValueError, however it is cut, and nothing else."""
    for size in (len(data), 1000):
        parser, _ = _parser()
        with pytest.raises(ValueError, match=r"."):
            _feed(parser, data, size)


def test_commands() -> None:
    """What is published is counted in bytes, its headers apart."""
    assert wire.publish(b"a", "é".encode()) == b"PUB a  2\r\n\xc3\xa9\r\n"
    assert wire.publish(b"a", b"x", b"r") == b"PUB a r 1\r\nx\r\n"
    head = wire.header({"Nats-Msg-Id": "1"})
    assert wire.publish(b"a", b"x", b"r", head) == b"HPUB a r 28 29\r\nNATS/1.0\r\nNats-Msg-Id: 1\r\n\r\nx\r\n"
    assert wire.status(b"NATS/1.0 503\r\n\r\n") == b"503"
    assert wire.status(head) == wire.status(b"") == b""


def test_a_pull_that_waits_asks_for_signs_of_life() -> None:
    """The server wants a pull at least twice as long as the distance of its heartbeats."""
    assert b"idle_heartbeat" in Pull(1, 1, 2 * HEARTBEAT).body()
    assert b"idle_heartbeat" not in Pull(1, 1, HEARTBEAT).body()
    assert Pull(1, 5, None).body() == b'{"batch":5,"no_wait":true}'


def test_how_a_pull_ends() -> None:
    """A heartbeat prolongs it, nothing there and time over end it, all else is a refusal."""
    pull = Pull(1, 3, 30.0)
    pull.ends = 0.0
    pull.told(b"100", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n")
    assert not pull.over
    assert pull.ends > 0
    pull.told(b"408", b"NATS/1.0 408 Request Timeout\r\n\r\n")
    assert (pull.over, pull.refusal) == (True, "")
    refused = Pull(2, 3, 30.0)
    refused.told(b"409", b"NATS/1.0 409 Consumer Deleted\r\n\r\n")
    assert (refused.over, refused.refusal) == (True, "409 Consumer Deleted")
