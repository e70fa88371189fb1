"""Where files are looked for. What a source gives is walked here, part by part of the pattern."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from bus import MissingExtraError
from task.errors import TaskError
from taskmasters.files.entry import Entry, name_of
from taskmasters.files.pattern import Glob

__all__ = ["SCHEMES", "Folder", "ListingError", "Source", "open_source", "walk"]

#: Scheme of a path → the extra that brings what reads it.
SCHEMES = {"s3": "s3", "gs": "gs", "memory": "files"}


class ListingError(TaskError):
    """A folder could not be looked into. The text names it; what was in it is unknown, not gone."""


class Folder(NamedTuple):
    """A folder in a folder."""

    path: str


class Source(Protocol):
    """Blocking; called from a thread. A folder that is not there is empty: the one of today may come yet."""

    def look(self, folder: str) -> Iterable[Entry | Folder]:
        """What is in a folder. Raises ListingError."""
        ...

    def find(self, folder: str) -> Iterable[Entry]:
        """All files in it and in the folders below. Raises ListingError."""
        ...

    def stat(self, path: str) -> Entry | None:
        """One file; None if it is not there. Raises ListingError."""
        ...

    def check(self, root: str) -> None:
        """Raise ListingError if nothing can ever be found below ``root``, because the bucket is not there."""
        ...


def walk(source: Source, glob: Glob, also: str = "") -> Iterator[Entry]:
    """The files a glob may be for: the caller still matches whole paths. ``also`` is a name taken beside the last part.

    Raises:
        ListingError: from the source.
    """
    yield from _below(source, glob.root, glob.parts, also)


def _below(source: Source, folder: str, parts: tuple[str, ...], also: str) -> Iterator[Entry]:
    part, *rest = parts
    if part == "**":
        yield from source.find(folder)
    elif not rest:
        for found in source.look(folder):
            if isinstance(found, Entry) and (name_of(found.path) == also or Glob.fits(part, name_of(found.path))):
                yield found
    elif any(sign in part for sign in "*?["):
        for found in source.look(folder):
            if isinstance(found, Folder) and Glob.fits(part, name_of(found.path)):
                yield from _below(source, found.path, tuple(rest), also)
    else:
        yield from _below(source, f"{folder.rstrip('/')}/{part}", tuple(rest), also)


def open_source(scheme: str, endpoint: str | None = None, *, anonymous: bool = False) -> Source:
    """The source for paths with that scheme; none is this machine's.

    Raises:
        MissingExtraError: naming what to install.
    """
    if not scheme:
        from taskmasters.files.local import LocalSource

        return LocalSource()
    try:
        from taskmasters.files.remote import RemoteSource

        return RemoteSource(scheme, endpoint, anonymous=anonymous)
    except ImportError as error:
        extra = SCHEMES[scheme]
        told = f"paths with {scheme}:// need {error.name or 'its client'}: pip install 'taskbus[{extra}]'"
        raise MissingExtraError(told, extra=extra) from None
