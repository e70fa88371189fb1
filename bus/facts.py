"""What servers and files tell about themselves, for whoever judges whether that will hurt: ``taskbus doctor``.

Each adapter reports its own facts by :meth:`bus.Bus.diagnose`; names and units are in its ``diagnose`` module. Seconds
and bytes are plain numbers. Looking alters nothing: no topic, group or file is made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Fact", "Look", "clock_ahead", "unknown"]


class Look(NamedTuple):
    """What to look at: pairs of topic and group (``None`` = the topic only).

    ``monitor`` is the http:// address of a server's monitoring port, for adapters whose servers tell more there.
    """

    topics: Sequence[tuple[str, str | None]]
    monitor: str | None = None


class Fact(NamedTuple):
    """One thing found. ``place`` is what it is about: a stream, an nsqd, a file.

    A ``value`` of None with ``trouble`` says that it could not be found out, and why.
    """

    name: str
    value: str | float | bool | None
    place: str
    trouble: str = ""


def unknown(name: str, place: str, trouble: object) -> Fact:
    """A fact that could not be had, and why."""
    return Fact(name, None, place, str(trouble))


def clock_ahead(place: str, told: float, asked: float, answered: float | None = None) -> Fact:
    """``clock.ahead``: seconds by which a server's clock is ahead of ours.

    ``told`` is what it said, ``asked`` and ``answered`` are our times before and after, all since the epoch.
    """
    return Fact("clock.ahead", told - (asked + (time.time() if answered is None else answered)) / 2, place)
