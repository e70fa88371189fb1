"""What the directory of a file bus tells: ``lease``, ``option.sync`` and ``file.*`` of :mod:`bus.mounts`."""

from __future__ import annotations

import asyncio

from bus.facts import Fact
from bus.mounts import file_facts

__all__ = ["diagnose"]


async def diagnose(root: str, *, lease: float, sync: bool) -> list[Fact]:
    """The facts of one directory, which is not made if it is missing."""
    return [
        Fact("lease", lease, root),
        Fact("option.sync", sync, root),
        *await asyncio.to_thread(file_facts, root),
    ]
