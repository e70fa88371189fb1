"""Inputs that are nearly right: valid ones, changed in a few places by a seeded generator."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["mutate"]

#: What parsers stumble over.
_TOKENS = (
    *(b"", b"\0", b"\n", b"\r\n", b"\r\n\r\n", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x1b"),
    *(b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b"[[", b"]]", b"{{", b"}}", b"<", b">", b"%", b"%00", b"%zz", b"%ff"),
    *(b":", b";", b",", b"=", b"#", b"&", b"?", b"@", b"|", b"*", b"**", b"/", b"//", b"..", b"../", b"~", b"$", b"!"),
    *(b"-", b"+", b".", b"0", b"-1", b"1e999", b"-0", b"NaN", b"Infinity", b"null", b"true", b"false", b"\\ud800"),
    *(b"255", b"256", b"65535", b"65536", b"4294967295", b"9223372036854775808", b"9" * 400, b"9" * 5000, b"1e-400"),
    *(b"0000-00-00", b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00+23:59", b"2026-02-30", b"24:00", b"1s", b"1h1h"),
    *("٣".encode(), "²".encode(), "µ".encode(), "ſ".encode(), "İ".encode(), "\u2028".encode(), "😀".encode()),
    *(b"!!python/object:os.system", b"&a [*a]", b"*a", b"<<: ", b"__proto__", b"__class__", b"{0.__class__}"),
)
#: Bytes of the longest input, unless a valid one is longer.
_LONGEST = 20_000


def mutate(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One input, made from ``seeds``. One in a hundred is only noise."""
    if random.random() < 0.01:
        return random.randbytes(random.randrange(200))
    data = bytearray(random.choice(seeds))
    limit = max(_LONGEST, len(data))
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        _CHANGES[int(random.random() * len(_CHANGES))](random, data, seeds)
    return bytes(data[:limit])


def _span(random: Random, data: bytearray) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((0, 1, 1, 2, 4, 8, 16, 64)))


def _bit(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _byte(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] = random.randrange(256)


def _cut(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, end = _span(random, data)
    del data[start:end]


def _end(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[random.randrange(len(data) + 1) :]


def _token(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, end = _span(random, data)
    data[start : end if random.random() < 0.5 else start] = random.choice(_TOKENS)


def _number(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Put another number where one is."""
    digits = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
    if digits:
        start = random.choice(digits)
        end = start
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        data[start:end] = random.choice((b"0", b"-1", b"%d" % random.randrange(10**6), b"9" * 19, b"9" * 330, b"1.5"))


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, end = _span(random, data)
    data[start:start] = data[start:end] * random.choice((1, 2, 10, 100, 1000))


def _splice(random: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = random.choice(seeds)
    begin = random.randrange(len(other) + 1)
    start, end = _span(random, data)
    data[start:end] = other[begin : begin + random.choice((4, 16, 64, 1000))]


_CHANGES = (_bit, _byte, _cut, _end, _token, _token, _token, _number, _repeat, _splice)
