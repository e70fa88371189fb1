"""Workers and senders are killed, stand still, are told to stop, come and go."""

from __future__ import annotations

import signal

from tests.nemesis.cluster import Cluster
from tests.nemesis.fault import Fault, Need, register
from tests.nemesis.plan import Period

__all__ = ["AllWorkersKill", "Rebalance", "SenderKill", "SlowConsumer", "TermStorm", "WorkerFreeze", "WorkerKill"]


@register
class WorkerKill(Fault):
    """``kill -9`` of one worker after the other, each started again by the supervisor."""

    name = "worker kill -9"
    again = 1

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice = period.dice(self.name)
        while not period.rest(dice.uniform(0.1, 1.0)):
            victim = cluster.fleet.victim(dice)
            if victim is not None:
                cluster.count(self.name)
                cluster.fleet.send_signal(victim, signal.SIGKILL)


@register
class AllWorkersKill(Fault):
    """``kill -9`` of all workers at once, as when their machine stops."""

    name = "all workers kill -9"
    again = 1

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice = period.dice(self.name)
        while not period.rest(dice.uniform(1.0, 2.0)):
            for victim in cluster.fleet.victims():
                cluster.count(self.name)
                cluster.fleet.send_signal(victim, signal.SIGKILL)


@register
class SenderKill(Fault):
    """``kill -9`` of the sender. Started again it sends anew what it has no confirmation of."""

    name = "sender kill -9"
    again = 0

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice = period.dice(self.name)
        while not period.rest(dice.uniform(0.5, 2.0)):
            if cluster.kill_sender():
                cluster.count(self.name)


@register
class WorkerFreeze(Fault):
    """SIGSTOP of a worker for longer than its lease, then SIGCONT: it goes on as if nothing had been."""

    name = "worker frozen"
    # What it was doing, and what it begins before it learns that it stood still.
    again = 2

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice = period.dice(self.name)
        while not period.rest(dice.uniform(0.1, 1.0)):
            victim = cluster.fleet.victim(dice)
            if victim is None:
                continue
            cluster.count(self.name)
            cluster.fleet.send_signal(victim, signal.SIGSTOP)
            # The whole time, even if the period ends meanwhile: what is wanted is a lease that was lost.
            period.sleep(dice.uniform(1.2, 2.0) * cluster.lease)
            cluster.fleet.send_signal(victim, signal.SIGCONT)


@register
class TermStorm(Fault):
    """SIGTERM of one worker after the other, also of some that have just been started."""

    name = "SIGTERM storm"
    again = 0

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice = period.dice(self.name)
        while not period.rest(dice.uniform(0.05, 0.5)):
            victim = cluster.fleet.victim(dice, working=False)
            if victim is not None:
                cluster.count(self.name)
                cluster.fleet.send_signal(victim, signal.SIGTERM)


@register
class Rebalance(Fault):
    """Workers come and go, twice as many as before and one alone by turns."""

    name = "rebalance storm"
    needs = Need.SIZE

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice, size = period.dice(self.name), cluster.fleet.size
        while not period.rest(dice.uniform(0.5, 1.5)):
            cluster.count(self.name)
            cluster.fleet.scale(dice.randint(1, 2 * size))
        cluster.fleet.scale(size)


@register
class SlowConsumer(Fault):
    """All workers but one are gone while tasks keep coming."""

    name = "slow consumer"
    needs = Need.SIZE

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        size = cluster.fleet.size
        cluster.count(self.name)
        cluster.fleet.scale(1)
        while not period.rest(1.0):
            pass
        cluster.fleet.scale(size)
