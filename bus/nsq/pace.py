"""How many messages nsqd may send beyond those in hand: one while little comes, all that is wanted while much does.

nsqd keeps what it sends in a buffer for 25 ms or more, unless RDY is used up: then it writes at once (``messagePump``
in https://github.com/nsqio/nsq/blob/v1.3.0/nsqd/protocol_v2.go). So a lone message is quick only where no other may
follow it, and many are quick only where many may. With too little permitted many cost a round trip each; with too much
a lone one waits until less is permitted, which makes nsqd write it, and that happens after :attr:`Pace.patience`.
"""

from __future__ import annotations

__all__ = ["Pace"]

#: By how much more is permitted whenever all that was permitted came.
_GROWTH = 4
#: Seconds without a message, beyond two round trips, after which few are expected.
_PATIENCE = 0.001


class Pace:
    """That of one connection. ``round_trip`` is in seconds, ``most`` is what nsqd permits, ``now`` is of one clock."""

    def __init__(self, round_trip: float, most: int) -> None:
        #: How many more than are in hand may come.
        self.quota = 1
        #: Seconds to wait for a message before calling :meth:`quiet`.
        self.patience = _PATIENCE + 2 * round_trip
        self._round_trip = round_trip
        self._most = most
        self._moved = 0.0
        self._rested = False

    def asked(self, now: float) -> None:
        """After a pause nsqd may send again."""
        self._moved = now
        self._rested = False

    def rested(self) -> None:
        """The last in hand is settled while more are wanted: what comes next may have been sent because of that."""
        self._rested = True

    def came(self, now: float, *, all: bool) -> None:
        """Messages came: ``all`` that were permitted, or fewer."""
        # One that comes within a round trip was there before it was asked for, and there may be more.
        prompt = now - self._moved < self._round_trip and not self._rested
        if all and (prompt or self.quota > 1):
            self.quota = min(self.quota * _GROWTH, self._most)
        self._moved = now
        self._rested = False

    def quiet(self) -> None:
        """Nothing came for as long as there is patience."""
        self.quota = 1
