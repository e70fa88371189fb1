"""The fence of leases that end by the clock."""

from __future__ import annotations

import time

from bus import Delivery
from bus.fence import Leased, divide


def test_each_delivery_is_ours_lost_or_settled() -> None:
    """A lease is lost when its time is over or it was told so, for ever, and leaves what is held; each counts once."""
    now = time.monotonic()
    deliveries = [Delivery(b"", str(number), handle=Leased(now + 60.0)) for number in range(5)]
    ours, over, told, settled, both = deliveries
    over.handle.deadline = now - 1.0
    told.handle.lost = True
    settled.handle.settled = True
    both.handle.settled, both.handle.deadline = True, now - 1.0
    held = {delivery.handle: delivery for delivery in deliveries}

    assert divide([*deliveries, *deliveries], held) == ([ours], [over, told])
    assert list(held.values()) == [ours, settled, both]
    over.handle.deadline = now + 60.0
    assert divide([over], held) == ([], [over])
