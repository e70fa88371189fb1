"""How a stream of bytes becomes numbered lines."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import Message, TooLargeError, UnsupportedError
from bus.lines.text import LineSplitter, check_bodies


def split(*blocks: bytes, max_line: int = 1000) -> list[tuple[str, bytes]]:
    """Feed the blocks, then end."""
    splitter = LineSplitter(max_line)
    return [line for block in blocks for line in splitter.feed(block)] + splitter.end()


def test_lines_are_numbered_from_one() -> None:
    """Each line has its number in its id."""
    assert split(b"a\nb\n") == [("line-1", b"a"), ("line-2", b"b")]


def test_blank_lines_are_skipped_and_counted() -> None:
    """A blank line yields nothing, but the next line's number is the one an editor shows."""
    assert split(b"\na\n \t\n\r\nb\n") == [("line-2", b"a"), ("line-5", b"b")]


def test_byte_order_mark_and_crlf_are_dropped() -> None:
    """A file made by a Windows editor reads as any other, wherever its bytes are cut."""
    text = b"\xef\xbb\xbfa\r\nb\rc\r\n"
    for at in range(len(text)):
        assert split(text[:at], text[at:]) == [("line-1", b"a"), ("line-2", b"b\rc")], at


def test_last_line_without_newline_is_yielded_as_it_stands() -> None:
    """What ``echo -n`` made is a line too."""
    assert split(b"a\nb") == [("line-1", b"a"), ("line-2", b"b")]
    assert split(b"\xef\xbb\xbfb") == [("line-1", b"b")]


def test_nul_and_invalid_utf8_pass_through() -> None:
    """Bytes are not judged here: the receiver sends them to the dead letters with their reason."""
    assert split(b"\x00\xff\xfe\na\n") == [("line-1", b"\x00\xff\xfe"), ("line-2", b"a")]


def test_a_line_over_the_limit_comes_in_pieces_and_later_numbers_hold() -> None:
    """Nothing of a long line vanishes, and the lines after it keep their numbers."""
    expected = [("line-1", b"a"), ("line-2", b"12345"), ("line-2.2", b"67890"), ("line-2.3", b"xy"), ("line-3", b"b")]
    text = b"a\n1234567890xy\r\nb\n"
    for at in range(len(text)):
        assert split(text[:at], text[at:], max_line=5) == expected, at


def test_a_long_line_is_not_held_whole() -> None:
    """What is held back stays within the limit and one block, however long the line is."""
    splitter = LineSplitter(1000)
    for _ in range(100):
        splitter.feed(b"x" * 300)

        assert splitter.held <= 1300


_BYTES = st.lists(st.sampled_from([b"a", b"b", b" ", b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\x00"]), max_size=40)


@given(_BYTES.map(b"".join), st.lists(st.integers(0, 60), max_size=5), st.integers(3, 12))
def test_cutting_the_stream_elsewhere_changes_nothing(text: bytes, cuts: list[int], max_line: int) -> None:
    """The lines depend on the bytes, not on the blocks they came in; and no visible byte is lost."""
    edges = [0, *sorted(cuts), len(text)]
    blocks = [text[a:b] for a, b in pairwise(edges)]

    cut, whole = split(*blocks, max_line=max_line), split(text, max_line=max_line)

    assert cut == whole
    assert len({id for id, _ in whole}) == len(whole)
    kept = b"".join(b"".join(body.split()) for _, body in whole)
    assert kept == b"".join(text.removeprefix(b"\xef\xbb\xbf").split())


@pytest.mark.parametrize("body", [b"", b"  ", b"a\nb", b"a\r", b"\xef\xbb\xbf{}"])
def test_bodies_that_would_not_come_back_are_refused(body: bytes) -> None:
    """A body that is not one line of text is refused by name, before anything is sent."""
    with pytest.raises(UnsupportedError, match="hello"):
        check_bodies([Message("hello", b"{}"), Message("hello", body)], "lines", 100)


def test_oversize_and_delay_are_refused() -> None:
    """The limit is exact, and a delay has nowhere to be kept."""
    check_bodies([Message("hello", b"x" * 100)], "lines", 100)
    with pytest.raises(TooLargeError) as error:
        check_bodies([Message("hello", b"x" * 101)], "lines", 100)
    assert (error.value.size, error.value.limit, error.value.topic) == (101, 100, "hello")
    with pytest.raises(UnsupportedError):
        check_bodies([Message("hello", b"{}", delay=1.0)], "lines", 100)
