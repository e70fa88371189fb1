"""The options of a ``sqlite:`` URL."""

from __future__ import annotations

from dataclasses import dataclass

from bus.units import duration_within, parse_size
from bus.url import option

__all__ = ["SqliteOptions"]

#: SQLite takes no value over 1e9 bytes, and a claim hands over several bodies as one value.
_LARGEST = 256 * 1024**2


def _size(text: str) -> int:
    size = parse_size(text)
    if not 1 <= size <= _LARGEST:
        raise ValueError("must be 1 byte to 256MiB; publish a reference to larger data")
    return size


def _synchronous(text: str) -> str:
    if text not in ("full", "normal"):
        raise ValueError("write full (survives power loss) or normal (survives kill -9)")
    return text


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """What can stand behind the ``?``."""

    lease: float = option(
        duration_within(0.05, 10 * 365 * 86400.0), 30.0, "time a delivery stays with its consumer unless it is extended"
    )
    max_size: int = option(_size, 1024**2, "largest body")
    poll: float = option(
        duration_within(0.001, 10.0), 0.05, "longest pause between two looks for what other processes did"
    )
    synchronous: str = option(_synchronous, "full", "full: a confirmed publish survives power loss; normal: kill -9")
    wait: float = option(duration_within(0.0, 3600.0), 30.0, "how long to wait for a lock held by another process")
