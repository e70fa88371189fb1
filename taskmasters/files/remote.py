"""Files of object stores, through fsspec. Importing this needs the extra of the scheme."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import fsspec

from taskmasters.files.entry import Entry
from taskmasters.files.source import Folder, ListingError

__all__ = ["RemoteSource"]

Returned = TypeVar("Returned")
#: Seconds a request may take: without a limit a store that hangs would never be told of.
_CONNECT, _READ = 10, 60


class RemoteSource:
    """One object store. Credentials come from where its own tools take them: environment, files, the machine's role.

    Raises:
        ImportError: if the client is not installed.
    """

    def __init__(self, scheme: str, endpoint: str | None, *, anonymous: bool) -> None:
        self._scheme = scheme
        # Otherwise fsspec would tell again what it saw at the first look.
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if scheme == "s3":
            options |= {"anon": anonymous, "endpoint_url": endpoint}
            options["config_kwargs"] = {"connect_timeout": _CONNECT, "read_timeout": _READ}
        elif scheme == "gs":
            options |= {"token": "anon"} if anonymous else {}
            options |= {"endpoint_url": endpoint} if endpoint else {}
        self._files: Any = _file_system(scheme)(**options)

    def look(self, folder: str) -> Iterator[Entry | Folder]:
        """What is in a folder: what shares the prefix as far as the next slash."""
        found: list[dict[str, Any]] = self._ask(lambda: self._files.ls(folder, detail=True), folder, [])
        for info in found:
            path = self._path(info)
            if path.rstrip("/") == folder.rstrip("/"):
                continue
            if info["type"] == "directory":
                yield Folder(path.rstrip("/"))
            elif not path.endswith("/"):
                yield self._entry(info)

    def find(self, folder: str) -> Iterator[Entry]:
        """All files below, in one listing of the prefix."""
        found: dict[str, Any] = self._ask(lambda: self._files.find(folder, detail=True), folder, {})
        for info in found.values():
            if info["type"] == "file" and not info["name"].endswith("/"):
                yield self._entry(info)

    def stat(self, path: str) -> Entry | None:
        """One file."""
        info = self._ask(lambda: self._files.info(path), path, None)
        return None if info is None or info["type"] != "file" else self._entry(info)

    def check(self, root: str) -> None:
        """A store says of a bucket that is not there what it says of an empty folder."""
        bucket = root.partition("://")[2].partition("/")[0]
        if self._scheme != "memory" and not self._ask(lambda: self._files.exists(bucket), bucket, False):
            raise ListingError(f"there is no bucket {self._scheme}://{bucket}, or it may not be looked into")

    def _ask(self, ask: Callable[[], Returned], what: str, missing: Returned) -> Returned:
        try:
            return ask()
        except FileNotFoundError:
            return missing
        except Exception as error:  # each client of fsspec has errors of its own; none may leave this module
            told = " ".join(str(error).split()) or type(error).__name__
            raise ListingError(f"cannot look into {what}: {told[:300]}") from None

    def _path(self, info: dict[str, Any]) -> str:
        return f"{self._scheme}://{str(info['name']).lstrip('/')}"

    def _entry(self, info: dict[str, Any]) -> Entry:
        size = int(info.get("size") or 0)
        mtime = _seconds(_first(info, ("LastModified", "mtime", "updated", "created")))
        version = _first(info, ("generation", "ETag", "etag"))
        return Entry(self._path(info), size, mtime, str(version).strip('"') if version else f"{size}-{mtime!r}")


def _file_system(scheme: str) -> Any:
    if scheme == "gs":
        # What fsspec knows as gs asks Google's control plane of what kind a bucket is before it lists it, over gRPC: a
        # minute for nothing where another server is the endpoint, or that may not be asked.
        from gcsfs.core import GCSFileSystem, logger

        # It logs each failure with its traceback, and raises it too: we tell of it.
        logger.setLevel(logging.CRITICAL)
        return GCSFileSystem
    return fsspec.get_filesystem_class(scheme)


def _first(info: dict[str, Any], keys: Iterable[str]) -> object:
    return next((info[key] for key in keys if info.get(key)), None)


def _seconds(value: object) -> float:
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).timestamp()
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0
