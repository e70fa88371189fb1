"""The fewest things with which something still happens: delta debugging (Zeller and Hildebrandt, 2002)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from apps.certify.errors import OutOfRunsError

__all__ = ["narrow"]

Thing = TypeVar("Thing")


def narrow(things: Sequence[Thing], happens: Callable[[Sequence[Thing]], bool], least: int = 1) -> list[Thing]:
    """A part of ``things``, in their order, of which none can be left out; ``happens`` is true of the whole.

    No part of fewer than ``least`` is tried. When no more runs are allowed it is the smallest found until then.
    """
    found = list(things)
    pieces = 2
    try:
        while len(found) > least:
            size = max(1, len(found) // pieces)
            parts = [found[start : start + size] for start in range(0, len(found), size)]
            tried = [part for part in parts if len(part) >= least]
            if pieces > 2 or not tried:
                tried += [[each for each in found if each not in part] for part in parts]
            smaller = next((part for part in tried if least <= len(part) < len(found) and happens(part)), None)
            if smaller is not None:
                found, pieces = smaller, 2
            elif size == 1:
                break
            else:
                pieces = min(len(found), pieces * 2)
    except OutOfRunsError:
        pass
    return found
