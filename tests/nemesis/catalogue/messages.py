"""What comes on the bus is no task, or comes twice."""

from __future__ import annotations

from random import Random

from task import Task, encode
from tests.nemesis.cluster import Cluster
from tests.nemesis.fault import Fault, register
from tests.nemesis.plan import Period

__all__ = ["Copies", "Poison"]

#: What is no task; ``@`` stands for the mark that tells which it was.
_POISON = (
    b"\xff\xfe @",
    b"@",
    b'"@"',
    b'["@"]',
    b'{"task": "@"',
    b'{"type": "noted", "task": 5, "msg": "@"}',
    b'{"type": "noted", "task": "0", "id": "@", "x": NaN}',
    b'{"type": "another", "task": "@"}',
    b"[" * 5000 + b"@",
)


def poison(dice: Random) -> tuple[str, bytes]:
    """Something that is no task, and its mark."""
    mark = f"poison-{dice.getrandbits(64):016x}"
    return mark, dice.choice(_POISON).replace(b"@", mark.encode())


@register
class Poison(Fault):
    """Bytes that are no task, among the tasks."""

    name = "poison"
    again = 0

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice = period.dice(self.name)
        while not period.rest(dice.uniform(0.1, 0.5)):
            messages = [poison(dice) for _ in range(dice.randint(1, 5))]
            cluster.count(self.name, len(messages))
            cluster.publish("noted", messages)


@register
class Copies(Fault):
    """Tasks that were accepted come once more, as messages of their own."""

    name = "duplicate delivery"
    again = 0

    def strike(self, cluster: Cluster, period: Period) -> None:
        """See :class:`Fault`."""
        dice = period.dice(self.name)
        while not period.rest(dice.uniform(0.1, 0.5)):
            accepted = [id for id in cluster.ledger.accepted() if id.isdigit()]
            chosen = dice.sample(accepted, min(5, len(accepted)))
            cluster.count(self.name, len(chosen))
            cluster.publish("noted", [(id, encode(Task("noted", "0.001", id=id))) for id in chosen], copies=True)
