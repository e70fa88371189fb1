"""How many messages nsqd may send beyond those in hand: one while little comes, all that is wanted while much does.

nsqd keeps what it sends in a buffer for 25 ms or more, unless RDY is used up: then it writes at once (``messagePump``
in https://github.com/nsqio/nsq/blob/v1.3.0/nsqd/protocol_v2.go). So a lone message is quick only where no other may
follow it, and many are quick only where many may. With too little permitted many cost a round trip each; with too much
a lone one waits until less is permitted, which makes nsqd write it, and that happens after :attr:`Pace.patience`.
"""

from __future__ import annotations

__all__ = ["Pace"]

#: After so many lone messages that nothing here can have been the cause of, more are permitted.
_ROW = 4
#: By how much more is permitted whenever all that was permitted came.
_GROWTH = 4
#: Seconds without a message, beyond two round trips, after which few are expected.
_PATIENCE = 0.001


class Pace:
    """That of one connection. ``round_trip`` is in seconds, ``most`` is what nsqd permits."""

    def __init__(self, round_trip: float, most: int) -> None:
        #: How many more than are in hand may come.
        self.quota = 1
        #: Seconds to wait for a message before calling :meth:`quiet`.
        self.patience = _PATIENCE + 2 * round_trip
        self._most = most
        self._row = 0
        self._rested = False

    def rested(self) -> None:
        """The last in hand is settled while more are wanted: what comes next may have been sent because of that."""
        self._rested = True

    def came(self, number: int, left: int) -> None:
        """So many came, and ``left`` more are permitted; below 0 if they were sent before less was permitted."""
        self._row = 0 if self._rested else self._row + 1
        self._rested = False
        if left < 0 or (left == 0 and (self.quota > 1 or self._row >= _ROW)):
            self.quota = min(max(self.quota, number) * _GROWTH, self._most)

    def quiet(self) -> None:
        """Nothing came for as long as there is patience."""
        self.quota = 1
        self._row = 0
