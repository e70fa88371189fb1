"""A file as a look at its folder shows it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Entry", "folder_of", "name_of"]


class Entry(NamedTuple):
    """``version`` is another text whenever the content may be another: size and time, or what an object store says.

    ``mtime`` is seconds since the epoch, 0 where it is not known; ``size`` is bytes.
    """

    path: str
    size: int
    mtime: float
    version: str


def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def folder_of(path: str) -> str:
    """The path without its last part."""
    return path.rpartition("/")[0]
