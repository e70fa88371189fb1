"""What a fault is, and how one is made known.

A fault is one object, registered by name::

    @register
    class BrokerKill(Fault):
        name = "broker kill -9"
        needs = Need.BROKER

        def strike(self, cluster: Cluster, period: Period) -> None:
            while not period.over:
                cluster.broker.kill()
                cluster.count(self.name)
                period.rest(1)
                cluster.broker.start()
                period.rest(2)

``strike`` runs in a thread of its own, may be joined by other faults, and leaves nothing broken behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Flag, auto
from typing import TYPE_CHECKING, ClassVar

from bus import Durability

if TYPE_CHECKING:
    from tests.nemesis.cluster import Cluster
    from tests.nemesis.plan import Period

__all__ = ["FAULTS", "Fault", "Need", "register"]


class Need(Flag):
    """What a fault needs for itself: two that need the same do not come together."""

    NOTHING = 0
    #: A broker: a process of its own that can be killed.
    BROKER = auto()
    #: A connection that goes through the proxy.
    PROXY = auto()
    #: The number of workers.
    SIZE = auto()


class Fault(ABC):
    """One way for things to go wrong."""

    #: In the table and for ``--faults``: lower case, words.
    name: ClassVar[str]
    #: What it needs for itself.
    needs: ClassVar[Need] = Need.NOTHING
    #: The least tier that bears it without loss. Where the bus has a lower one, what is lost is counted and stated.
    tier: ClassVar[Durability] = Durability.D0
    #: How many tasks each strike counted by :meth:`Cluster.count` may have done again; ``None`` = no bound is asserted.
    #: Publishes whose outcome was unknown and which were repeated are allowed for besides.
    again: ClassVar[int | None] = None
    #: Whether the nemesis may take it for a plan of several faults.
    mixes: ClassVar[bool] = True

    def refuses(self, cluster: Cluster) -> str:
        """Why it cannot be done on this cluster; empty if it can."""
        if Need.BROKER in self.needs and cluster.broker is None:
            return "there is no broker"
        if Need.PROXY in self.needs and cluster.proxy is None:
            return "there is no connection"
        return ""

    def covered(self, cluster: Cluster) -> bool:
        """Whether the bus promises to lose nothing."""
        return cluster.durability >= self.tier

    def prepare(self, cluster: Cluster) -> None:  # noqa: B027 - most have nothing to prepare
        """Called when the broker answers and no other process has been started."""

    @abstractmethod
    def strike(self, cluster: Cluster, period: Period) -> None:
        """Do it, until ``period`` is over, and heal it."""


#: Every fault, by name.
FAULTS: dict[str, Fault] = {}


def register(fault: type[Fault]) -> type[Fault]:
    """Make a fault known; its name must be new."""
    if fault.name in FAULTS:
        raise ValueError(f"there is a fault {fault.name!r} already")
    FAULTS[fault.name] = fault()
    return fault
