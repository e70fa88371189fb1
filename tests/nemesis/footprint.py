"""Memory, open files and threads of a process that is meant to need no more of them later than sooner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Footprint", "drift", "floor", "footprint", "grown"]

#: By how much each may have grown.
_MORE = 0.10
#: How many files and threads more are no growth: those of a connection that is being made.
_FEW = 3
_KIB = 1024


class Footprint(NamedTuple):
    """Of one process."""

    name: str
    pid: int
    #: Resident bytes.
    memory: int
    files: int
    threads: int


def footprint(name: str, pid: int) -> Footprint | None:
    """What it takes now; None if it has ended."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory = int(status["VmRSS"].split()[0]) * _KIB
        return Footprint(name, pid, memory, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return None


def floor(several: Sequence[Footprint]) -> Footprint:
    """The least of each that one process took. What only came and went is not in it; what leaks is."""
    first = several[0]
    least = (min(getattr(each, what) for each in several) for what in ("memory", "files", "threads"))
    return Footprint(first.name, first.pid, *least)


def drift(samples: Sequence[Sequence[Footprint]]) -> list[str]:
    """What processes took more of in the last quarter of these samples than in the second, in sentences.

    In the first they may still take what they need. Of each quarter the least counts. Fewer than four samples show
    nothing.
    """
    quarter = len(samples) // 4
    return grown(_floors(samples[quarter : 2 * quarter]), _floors(samples[len(samples) - quarter :]))


def _floors(samples: Sequence[Sequence[Footprint]]) -> list[Footprint]:
    each: dict[int, list[Footprint]] = {}
    for sample in samples:
        for found in sample:
            each.setdefault(found.pid, []).append(found)
    return [floor(several) for several in each.values()]


def grown(before: Sequence[Footprint], after: Sequence[Footprint]) -> list[str]:
    """What takes more than a tenth more than before, in sentences. Processes that are not in both are left out."""
    known = {each.pid: each for each in before}
    found: list[str] = []
    for late in after:
        early = known.get(late.pid)
        if early is None:
            continue
        for what, least in (("memory", 0), ("files", _FEW), ("threads", _FEW)):
            was, now = getattr(early, what), getattr(late, what)
            if now > max(was * (1 + _MORE), was + least):
                found.append(f"{what} of the {late.name} ({late.pid}) grew from {was} to {now}")
    return found
