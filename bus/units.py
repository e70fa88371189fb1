"""Durations and sizes as people write them: ``250ms``, ``1h30m``, ``1MiB``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

__all__ = [
    "duration_within",
    "format_duration",
    "parse_duration",
    "parse_positive_duration",
    "parse_positive_size",
    "parse_size",
]

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(us|µs|ms|s|m|h|d|w)")
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")
_BYTES = {"": 1, "b": 1, "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3}
_BYTES |= {"ki": 1024, "kib": 1024, "mi": 1024**2, "mib": 1024**2, "gi": 1024**3, "gib": 1024**3}
_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*([a-zA-Z]*)")


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``1.5s``, ``1h30m``, ``-2d``. A bare number is seconds.

    Raises:
        ValueError: with a text that says what is accepted.
    """
    rest = text.strip()
    sign = -1.0 if rest.startswith("-") else 1.0
    rest = rest[1:] if rest[:1] in ("+", "-") else rest
    if _NUMBER.fullmatch(rest):
        total, position = float(rest), len(rest)
    else:
        total, position = 0.0, 0
        # Part by part: searching for the next one would take the square of a long text's length.
        while part := _PART.match(rest, position):
            total += float(part[1]) * _SECONDS[part[2]]
            position = part.end()
    if not rest or position != len(rest) or not math.isfinite(total):
        raise ValueError(f"{text!r} is not a duration; write seconds or like 250ms, 90s, 1h30m, 2d")
    return sign * total


def format_duration(seconds: float) -> str:
    """The shortest exact-enough writing of a duration, which :func:`parse_duration` reads back."""
    if seconds == 0:
        return "0s"
    sign, rest = ("-", -seconds) if seconds < 0 else ("", seconds)
    if rest < 1:
        return f"{sign}{_decimal(rest * 1000)}ms"
    if rest != int(rest):
        return f"{sign}{_decimal(rest)}s"
    out, whole = "", int(rest)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            out += f"{count}{unit}"
    return sign + out


def _decimal(number: float) -> str:
    text = f"{number:g}"
    return f"{number:.9f}".rstrip("0").rstrip(".") if "e" in text else text


def parse_size(text: str) -> int:
    """Bytes of ``1048576``, ``64KB`` (decimal) or ``1MiB`` (binary).

    Raises:
        ValueError: with a text that says what is accepted.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _BYTES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a size; write bytes or like 64KB, 1MiB")
    whole, _, decimals = match[1].partition(".")
    divisor: int = 10 ** len(decimals)
    return int(whole + decimals) * factor // divisor


def parse_positive_duration(text: str) -> float:
    """As :func:`parse_duration`, and longer than nothing: for a lease, say. Raises ValueError."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("must be longer than nothing")
    return seconds


def duration_within(least: float, most: float) -> Callable[[str], float]:
    """A reader like :func:`parse_duration` that takes ``least`` to ``most`` seconds. Raises ValueError."""

    def read(text: str) -> float:
        seconds = parse_duration(text)
        if not least <= seconds <= most:
            raise ValueError(f"must be {format_duration(least)} to {format_duration(most)}")
        return seconds

    return read


def parse_positive_size(text: str) -> int:
    """As :func:`parse_size`, and at least one byte. Raises ValueError."""
    size = parse_size(text)
    if size < 1:
        raise ValueError("must be at least 1 byte")
    return size
