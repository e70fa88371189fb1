"""Leases of what a taskmaster has received and not settled, kept while bus or database refuse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from bus import BusError, Consumer, Delivery

__all__ = ["keep_leases"]

_log = logging.getLogger("taskbus.leases")


async def keep_leases(consumer: Consumer, held: Callable[[], Sequence[Delivery]]) -> None:
    """Extend the leases of what is ``held``, for ever; returns at once where there are none."""
    lease = consumer.lease
    while lease is not None:
        await asyncio.sleep(lease / 3)
        if deliveries := held():
            try:
                await consumer.extend(deliveries)
            except BusError as error:
                _log.warning("cannot extend leases: %s", error)
