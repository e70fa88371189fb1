"""The declaration itself: whole, consistent, and the one this deployment is meant to have.

What each capability promises, and what its absence means, is tested where the behaviour is.
"""

from __future__ import annotations

import json
from dataclasses import fields

from bus.capabilities import Capabilities, Durability, Order
from bus.conformance.bench import Bench, case
from bus.contract import Consumer

__all__ = ["DeclaringTests"]

_NUMBERS = ("lease_ceiling", "publish_delay", "nack_delay", "dedupe", "max_size")


class DeclaringTests:
    """A declaration that leaves nothing out."""

    @case(delivers=False)
    async def test_capabilities_are_complete(self, bench: Bench) -> None:
        """Every capability has a value of its kind, and those that need another come with it."""
        caps = bench.caps
        assert isinstance(caps, Capabilities)
        assert isinstance(caps.durability, Durability)
        assert isinstance(caps.order, Order)
        for field in fields(caps):
            value = getattr(caps, field.name)
            if field.name in _NUMBERS:
                assert value is None or value > 0, f"{field.name} is {value}: a number over 0, or None"
            elif field.name not in ("durability", "order"):
                assert isinstance(value, bool), f"{field.name} is {value!r}: True or False"
        assert caps.lease_ceiling is None or caps.lease, "lease_ceiling without lease"
        assert not caps.partitioned or caps.shared, "partitioned without shared"
        assert not caps.release_counts or caps.attempts, "release_counts without attempts"
        assert not caps.depth_tells_delayed or caps.depth, "depth_tells_delayed without depth"
        assert not caps.finite or not caps.lease or caps.retained, "a lease on what cannot be received"
        json.dumps(caps.describe(), allow_nan=False)

    @case(delivers=False)
    async def test_durability_is_the_expected_one(self, bench: Bench) -> None:
        """The adapter declares the tier of durability which the target says this deployment has."""
        assert bench.caps.durability is bench.target.durability

    @case(delivers=False)
    async def test_capabilities_do_not_change(self, bench: Bench) -> None:
        """Before and after opening, and on a second connection, the declaration is the same."""
        assert bench.bus.capabilities == bench.caps
        assert (await bench.connect()).capabilities == bench.caps
        assert bench.bus.url.scheme in bench.bus.schemes

    @case(delivers=False)
    async def test_consumers_say_what_they_are(self, bench: Bench) -> None:
        """A consumer knows its topic, its group and its lease, which is longer than nothing."""
        consumer: Consumer = await bench.consumer("group-1")
        assert (consumer.topic, consumer.group) == (bench.topic, "group-1")
        assert consumer.lease is None or (bench.caps.lease and consumer.lease > 0)
