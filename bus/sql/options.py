"""The options of a ``sqlite:`` URL."""

from __future__ import annotations

from dataclasses import dataclass

from bus.units import parse_duration, parse_size
from bus.url import option

__all__ = ["SqliteOptions"]


def _lease(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < 0.05:
        raise ValueError("must be at least 50ms")
    return seconds


def _size(text: str) -> int:
    size = parse_size(text)
    if size < 1:
        raise ValueError("must be at least 1 byte")
    return size


def _synchronous(text: str) -> str:
    if text not in ("full", "normal"):
        raise ValueError("write full (survives power loss) or normal (survives kill -9)")
    return text


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """What can stand behind the ``?``."""

    lease: float = option(_lease, 30.0, "time a delivery stays with its consumer unless it is extended")
    max_size: int = option(_size, 1024 * 1024, "largest body")
    synchronous: str = option(_synchronous, "full", "full: a confirmed publish survives power loss; normal: kill -9")
