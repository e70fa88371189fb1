"""The network between the broker and everybody else: cut, half open, lossy, late, slow."""

from __future__ import annotations

from random import Random

from tests.faults.proxy import Direction, Proxy
from tests.nemesis.cluster import Cluster
from tests.nemesis.fault import Fault, Need, register
from tests.nemesis.plan import Period

__all__ = ["Cut", "HalfOpen", "Latency", "LostAnswers", "Partition", "SlowLink"]


class _Weather(Fault):
    """Bad weather by turns with good."""

    needs = Need.PROXY
    #: Seconds it lasts, at least and at most.
    lasts = (0.5, 3.0)

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice, proxy = period.dice(self.name), cluster.proxy
        assert proxy is not None
        while not period.rest(dice.uniform(0.3, 1.0)):
            cluster.count(self.name)
            self.spoil(proxy, dice)
            period.rest(dice.uniform(*self.lasts))
            proxy.heal()

    def spoil(self, proxy: Proxy, dice: Random) -> None:
        """Make the weather bad."""
        raise NotImplementedError


@register
class Cut(_Weather):
    """Every connection is reset; new ones work."""

    name = "connections cut"
    lasts = (0.0, 0.5)

    def spoil(self, proxy: Proxy, dice: Random) -> None:
        """See above."""
        proxy.cut()


@register
class Partition(_Weather):
    """Nothing can be reached, and everybody is told so at once."""

    name = "partition"

    def spoil(self, proxy: Proxy, dice: Random) -> None:
        """See above."""
        proxy.refuse()


@register
class HalfOpen(_Weather):
    """Connections stay open and nothing goes through, for longer than a lease."""

    name = "half-open"
    lasts = (2.5, 5.0)

    def spoil(self, proxy: Proxy, dice: Random) -> None:
        """See above."""
        proxy.freeze()


@register
class LostAnswers(_Weather):
    """What is sent arrives, and what is answered is lost."""

    name = "answers lost"

    def spoil(self, proxy: Proxy, dice: Random) -> None:
        """See above."""
        proxy.lose(Direction.TO_CLIENT)


@register
class Latency(_Weather):
    """Everything comes late, by up to half a second each way."""

    name = "latency"

    def spoil(self, proxy: Proxy, dice: Random) -> None:
        """See above."""
        proxy.delay(dice.uniform(0.1, 0.5))


@register
class SlowLink(_Weather):
    """10 to 50 kB a second each way."""

    name = "slow link"

    def spoil(self, proxy: Proxy, dice: Random) -> None:
        """See above."""
        proxy.throttle(dice.uniform(10_000, 50_000))
