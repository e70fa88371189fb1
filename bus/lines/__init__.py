"""``lines:`` and ``stdio:``: plain files and pipes of JSON lines, read once to their end."""

from __future__ import annotations

from bus.lines.bus import LinesBus

__all__ = ["LinesBus"]
