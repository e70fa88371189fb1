"""When a topic counts as empty, for ``--drain``."""

from __future__ import annotations

import logging
from time import monotonic

from bus import Bus, BusError

__all__ = ["Drain"]

_log = logging.getLogger("taskbus.worker")
#: Seconds waited beyond a lease, and the least that counts as a lease, where a bus does not tell its depth. Pub/Sub
#: keeps a message ten seconds at least for a consumer that died before it could ask for less.
_MORE, _LEAST = 1.0, 10.0


class Drain:
    """Whether anything is left for a group.

    A bus with ``depth`` is asked. On any other a topic counts as empty when nothing came for longer than a lease, and
    for 11 seconds at least, while the bus worked: what an instance held that crashed has come again by then. What this
    instance handed back with a delay is waited for as well; what others have, or published with a delay, is not.
    """

    def __init__(self, bus: Bus, topic: str, group: str, lease: float | None) -> None:
        self._bus = bus
        self._topic = topic
        self._group = group
        self._quiet = max(lease or 0.0, _LEAST) + _MORE
        self._until = monotonic() + self._quiet

    def happened(self, delay: float = 0.0) -> None:
        """Something came, was settled, or was handed back for ``delay`` seconds."""
        self._until = max(self._until, monotonic() + delay + self._quiet)

    async def empty(self) -> bool:
        """Whether nothing is left, as far as can be told."""
        try:
            if self._bus.capabilities.depth:
                return (await self._bus.depth(self._topic, self._group)).total == 0
        except BusError as error:
            _log.warning("cannot tell whether the topic is empty: %s", error, extra={"event": "depth-failed"})
            return False
        if monotonic() < self._until:
            return False
        if (await self._bus.health()).ok:
            return True
        self.happened()
        return False
