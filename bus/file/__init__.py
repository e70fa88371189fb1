"""``file:DIRECTORY``: topics as files of JSON lines which people can read and append to."""

from __future__ import annotations

from bus.file.bus import FileBus

__all__ = ["FileBus"]
