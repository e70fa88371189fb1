"""NSQ's frames and commands: whole whatever the pieces, and no surprise for garbage."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("nsq")

from bus.nsq import protocol
from bus.nsq.protocol import Error, Frame, Frames, Message, NsqProtocolError, Response


def _frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">ll", len(data) + 4, kind) + data


_MESSAGE = struct.pack(">qH16s", 1, 7, b"0123456789abcdef") + b"body"


@given(st.lists(st.integers(1, 40), max_size=20))
def test_frames_come_whole_from_any_pieces(cuts: list[int]) -> None:
    """However the bytes are cut, the same frames come, in order."""
    stream = _frame(0, b"OK") + _frame(1, b"E_INVALID no") + _frame(2, _MESSAGE) + _frame(0, b"")
    frames, start = Frames(), 0
    found: list[Frame] = []
    for cut in [*cuts, len(stream)]:
        found += frames.feed(stream[start : start + cut])
        start += cut

    assert found == [
        Response(b"OK"),
        Error(b"E_INVALID no"),
        Message(1, 7, b"0123456789abcdef", b"body"),
        Response(b""),
    ]
    assert [type(frame) for frame in found] == [Response, Error, Message, Response]


@given(st.binary(max_size=200))
def test_garbage_is_frames_or_a_protocol_error(data: bytes) -> None:
    """Nothing a peer sends raises anything else."""
    with contextlib.suppress(NsqProtocolError):
        Frames().feed(data)


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 400 Bad Request", b"\0\0\0\3abc", b"\xff\xff\xff\xff", _frame(9, b"x"), _frame(2, b"short")],
)
def test_what_is_no_frame_is_a_protocol_error(data: bytes) -> None:
    """An HTTP server, an impossible size, an unknown type and a message cut short are told apart from frames."""
    with pytest.raises(NsqProtocolError):
        Frames().feed(data)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (protocol.publish("t", [b"a"]), b"PUB t\n\0\0\0\1a"),
        (protocol.publish("t", [b"a", b"bc"]), b"MPUB t\n\0\0\0\x0f\0\0\0\2\0\0\0\1a\0\0\0\2bc"),
        (protocol.publish("t", [b"a"], 0.0004), b"DPUB t 1\n\0\0\0\1a"),
        (protocol.announce("t", 3), b"PUB t\n\0\0\0\3"),
        (protocol.subscribe("t", "g"), b"SUB t g\n"),
        (protocol.ready(3), b"RDY 3\n"),
        (protocol.finish(b"i" * 16), b"FIN iiiiiiiiiiiiiiii\n"),
        (protocol.requeue(b"i" * 16), b"REQ iiiiiiiiiiiiiiii 0\n"),
        (protocol.requeue(b"i" * 16, 1.5), b"REQ iiiiiiiiiiiiiiii 1500\n"),
        (protocol.touch(b"i" * 16), b"TOUCH iiiiiiiiiiiiiiii\n"),
        (protocol.identify(b"{}"), b"IDENTIFY\n\0\0\0\2{}"),
        (protocol.auth(b"s"), b"AUTH\n\0\0\0\1s"),
    ],
)
def test_commands(command: bytes, expected: bytes) -> None:
    """Commands are those of the specification; delays are whole milliseconds, rounded up."""
    assert command == expected
