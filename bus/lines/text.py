"""One message per line: the format of both file-based buses."""

from __future__ import annotations

from collections.abc import Sequence

from bus.contract import Message
from bus.errors import TooLargeError, UnsupportedError

__all__ = ["LineSplitter", "check_bodies"]

_BOM = b"\xef\xbb\xbf"
_CR = 0x0D


def check_bodies(messages: Sequence[Message], scheme: str, max_size: int) -> None:
    """Refuse what would not come back from a file of lines as it was.

    Raises:
        TooLargeError: a body over ``max_size`` bytes.
        UnsupportedError: a delay, or a body that is not one non-blank line.
    """
    for topic, body, _, delay, _ in messages:
        if len(body) > max_size:
            raise TooLargeError(
                f"a message of {len(body)} bytes for {topic} is over the {scheme} bus's limit of {max_size}; nothing "
                "was sent: make it smaller, or raise the limit in the bus URL",
                topic=topic,
                size=len(body),
                limit=max_size,
            )
        if delay > 0:
            raise UnsupportedError(
                f"the {scheme} bus cannot delay a message (for {topic}): a line has no room for a time", topic=topic
            )
        if b"\n" in body or not body or body.isspace() or body[-1] == _CR or body.startswith(_BOM):
            raise UnsupportedError(
                f"a message for {topic} is not one line of text (it is blank, has a newline, ends in a carriage return "
                f"or begins with a byte order mark), which the {scheme} bus cannot keep: {body[:60]!r}",
                topic=topic,
            )


class LineSplitter:
    """Cuts a stream of blocks into numbered lines, holding back no more than ``max_line`` bytes.

    A byte order mark at the start, the CR of a CRLF and blank lines are dropped. A line over ``max_line`` comes in
    pieces of that size. Each line is ``(id, body)`` with the id ``line-N``, from 1; the pieces of one line are
    ``line-N``, ``line-N.2``, ``line-N.3`` ….
    """

    __slots__ = ("_begun", "_max_line", "_number", "_parts", "_piece", "held")

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._begun = False
        self._number = 0
        self._piece = 0
        self._parts: list[bytes] = []
        #: Bytes of a line whose end has not come yet.
        self.held = 0

    def feed(self, block: bytes) -> list[tuple[str, bytes]]:
        """The lines that ``block`` completes."""
        self._parts.append(block)
        self.held += len(block)
        if b"\n" not in block and self.held <= self._max_line:
            return []
        lines = self._held_lines()
        rest = lines.pop()
        out = self._complete(lines)
        whole = (len(rest) - 1) // self._max_line * self._max_line
        if whole > 0:
            out += self._pieces(rest[:whole])
            rest = rest[whole:]
        self._parts, self.held = [rest], len(rest)
        return out

    def end(self) -> list[tuple[str, bytes]]:
        """What was left without a newline when the stream ended, as it stands."""
        lines = self._held_lines() if self.held else []
        self._parts, self.held = [], 0
        return self._complete(lines)

    def _held_lines(self) -> list[bytes]:
        data = b"".join(self._parts)
        if not self._begun:
            self._begun = True
            data = data.removeprefix(_BOM)
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        return data.split(b"\n")

    def _complete(self, lines: list[bytes]) -> list[tuple[str, bytes]]:
        out: list[tuple[str, bytes]] = []
        number, limit, continued = self._number, self._max_line, self._piece > 0
        for line in lines:
            number += 1
            if continued or len(line) > limit:
                self._number = number - 1
                out += self._pieces(line)
                self._piece, continued = 0, False
            elif line and not line.isspace():
                out.append((f"line-{number}", line))
        self._number = number
        return out

    def _pieces(self, text: bytes) -> list[tuple[str, bytes]]:
        out: list[tuple[str, bytes]] = []
        line = f"line-{self._number + 1}"
        for at in range(0, len(text), self._max_line):
            self._piece += 1
            piece = text[at : at + self._max_line]
            if not piece.isspace():
                out.append((line if self._piece == 1 else f"{line}.{self._piece}", piece))
        return out
