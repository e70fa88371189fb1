"""Reading the whole lines of a topic's file, and recognising the file."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from bus.file.layout import locked

__all__ = ["Line", "Reader", "complete_lines", "fingerprint", "whole_end"]

#: Bytes read at once, at most.
_BLOCK = 256 * 1024
#: Bytes before a position by which it is recognised.
_FINGERPRINT = 64
_BOM = b"\xef\xbb\xbf"
_CR = 0x0D


class Line(NamedTuple):
    """One message: where it begins, what it says, and where the next line begins."""

    offset: int
    body: bytes
    next: int


def complete_lines(fd: int, start: int, longest: int, block: int = _BLOCK) -> Iterator[Line]:
    """The lines from ``start`` on which are ended by a newline and not blank; a longer one in pieces of ``longest``.

    ``block`` bytes are read at first. About ``longest`` bytes and one block are held.
    """
    base, held = start, b""
    while True:
        got = os.pread(fd, block, base + len(held))
        if not got:
            return
        block = min(block * 4, _BLOCK)
        lines = (held + got).split(b"\n")
        held = lines.pop()
        for raw in lines:
            end = base + len(raw) + 1
            # What nearly every line is; the rest is for _messages.
            if 0 < len(raw) <= longest and base and raw[-1] != _CR and not raw.isspace():
                yield Line(base, raw, end)
            else:
                yield from _messages(raw, base, end, longest)
            base = end
        if len(held) > longest:
            end = _newline(fd, base + len(held))
            if end < 0:
                return
            begin = len(_BOM) if base == 0 and held.startswith(_BOM) else base
            for at in range(begin, end, longest):
                piece = os.pread(fd, min(longest, end - at), at)
                last = at + longest >= end
                yield from _messages(piece, at, at + len(piece) + last, longest, last=last)
            base, held = end + 1, b""


def whole_end(fd: int) -> int:
    """Where the last complete line ends."""
    at = os.fstat(fd).st_size
    while at > 0:
        begin = max(0, at - _BLOCK)
        newline = os.pread(fd, at - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        at = begin
    return 0


def fingerprint(fd: int, position: int) -> int:
    """A checksum of what is just before ``position``, to tell whether this is still the file that was read."""
    begin = max(0, position - _FINGERPRINT)
    return zlib.crc32(os.pread(fd, position - begin, begin))


class Reader:
    """The file of one topic as one group sees it.

    Keeps a descriptor of the file last read, so that one made in its place cannot get its inode.
    """

    def __init__(self, path: str, longest: int) -> None:
        self.path = path
        self.longest = longest
        self._kept: int | None = None
        self._seen: tuple[int, int] | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[int]:
        """The file while nobody of ours appends to it.

        Raises:
            FileNotFoundError: there is none.
        """
        with locked(self.path, os.O_RDONLY, shared=True) as fd:
            stat = os.fstat(fd)
            self._seen = stat.st_ino, stat.st_size
            self.close()
            self._kept = os.dup(fd)
            yield fd

    def changed(self) -> bool:
        """Whether the file is another or has another length than when it was last opened."""
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            return False
        return self._seen != (stat.st_ino, stat.st_size)

    def close(self) -> None:
        """Let go of the file."""
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None


def _messages(raw: bytes, offset: int, end: int, longest: int, *, last: bool = True) -> Iterator[Line]:
    if offset == 0 and raw.startswith(_BOM):
        raw, offset = raw[len(_BOM) :], len(_BOM)
    if last and raw.endswith(b"\r"):
        raw = raw[:-1]
    if not raw or raw.isspace():
        return
    if len(raw) <= longest:
        yield Line(offset, raw, end)
        return
    for at in range(0, len(raw), longest):
        piece = raw[at : at + longest]
        if not piece.isspace():
            yield Line(offset + at, piece, end if at + longest >= len(raw) else offset + at + longest)


def _newline(fd: int, at: int) -> int:
    while block := os.pread(fd, _BLOCK, at):
        found = block.find(b"\n")
        if found >= 0:
            return at + found
        at += len(block)
    return -1
