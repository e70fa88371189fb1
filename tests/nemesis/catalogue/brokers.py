"""The broker is restarted, and killed."""

from __future__ import annotations

from bus import Durability
from tests.nemesis.cluster import Cluster
from tests.nemesis.fault import Fault, Need, register
from tests.nemesis.plan import Period

__all__ = ["BrokerFreeze", "BrokerKill", "BrokerRestart"]


@register
class BrokerRestart(Fault):
    """SIGTERM, some time without a broker, and it is started again."""

    name = "broker restart"
    needs = Need.BROKER
    tier = Durability.D1

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        broker, dice = cluster.broker, period.dice(self.name)
        assert broker is not None
        while not period.rest(dice.uniform(0.5, 2.0)):
            cluster.count(self.name)
            broker.stop()
            period.rest(dice.uniform(0.0, 2.0))
            broker.start()


@register
class BrokerKill(Fault):
    """``kill -9``, some time without a broker, and it is started again."""

    name = "broker kill -9"
    needs = Need.BROKER
    tier = Durability.D2

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        broker, dice = cluster.broker, period.dice(self.name)
        assert broker is not None
        while not period.rest(dice.uniform(0.5, 2.0)):
            cluster.count(self.name)
            broker.kill()
            period.rest(dice.uniform(0.0, 2.0))
            broker.start()


@register
class BrokerFreeze(Fault):
    """SIGSTOP for longer than a lease: connections stay open and nothing is answered."""

    name = "broker frozen"
    needs = Need.BROKER

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        broker, dice = cluster.broker, period.dice(self.name)
        assert broker is not None
        while not period.rest(dice.uniform(0.2, 1.0)):
            cluster.count(self.name)
            broker.pause()
            period.rest(dice.uniform(1.0, 2.0) * cluster.lease)
            broker.resume()
