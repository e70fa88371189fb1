"""Knowing without asking that a lease has ended: so nobody settles what the server has meanwhile given to others.

For buses whose server takes a settlement that comes too late without a word.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from time import monotonic
from typing import TypeVar

from bus.contract import Delivery

__all__ = ["Leased", "divide"]


class Leased:
    """What a consumer knows of one delivery. ``deadline`` is on the monotonic clock; after it, it is not ours."""

    __slots__ = ("deadline", "lost", "settled")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.settled = False
        self.lost = False


Handle = TypeVar("Handle", bound=Leased)


def divide(
    deliveries: Sequence[Delivery], held: MutableMapping[Handle, Delivery]
) -> tuple[list[Delivery], list[Delivery]]:
    """Those that are ours, and those whose lease is lost, which leave ``held``. Each once, without the settled ones."""
    ours: list[Delivery] = []
    lost: list[Delivery] = []
    now = monotonic()
    for delivery in dict.fromkeys(deliveries):
        handle: Handle = delivery.handle
        if handle.settled:
            continue
        if handle.lost or handle.deadline <= now:
            handle.lost = True
            held.pop(handle, None)
            lost.append(delivery)
        else:
            ours.append(delivery)
    return ours, lost
