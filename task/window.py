"""How many tasks an instance may hold: lazy with long tasks, flowing with tiny ones."""

from __future__ import annotations

__all__ = ["Window"]

#: Seconds of work an instance may hold beyond what it is doing. Others wait at most this long for what they could do.
_HORIZON = 0.05
#: The most it holds, however tiny the tasks are, unless more are in progress: what keeps a broker on the same network
#: busy while results on their way are confirmed.
_MOST = 8000
#: What is read ahead of a source that nobody shares, per slot.
_AHEAD = 1000
#: Weight of the newest measurement when tasks become shorter. When they become longer, it counts in full at once.
_WEIGHT = 0.3
#: Seconds below which a mean is that of tiny tasks, one of which may have waited for the processor: the window then
#: halves rather than shrink at once.
_TINY = 1e-4


class Window:
    """The number of deliveries to hold, received and not yet settled.

    A consumer that shares its topic with others begins with one per slot, so that a long task is never kept from
    somebody idle, and widens at most twofold per measurement while tasks prove short. ``fixed`` sets the number beyond
    those in progress instead. A source that nobody shares is read ahead from the start.
    """

    def __init__(self, slots: int, *, fixed: int | None, shared: bool) -> None:
        self._slots = slots
        #: Whether the size follows how long tasks take.
        self.adaptive = fixed is None and shared
        self._mean: float | None = None
        if fixed is not None:
            self.size = slots + fixed
        else:
            self.size = slots if shared else slots * _AHEAD

    @property
    def wide(self) -> bool:
        """Whether more is held than can be in progress."""
        return self.size > self._slots

    @property
    def tiny(self) -> bool:
        """Whether tasks are known to take less time than handing them to a thread and back."""
        return self._mean is not None and self._mean < _TINY

    def observe(self, seconds: float, tasks: int) -> None:
        """``tasks`` more ended, having run ``seconds`` together."""
        if not self.adaptive or not tasks:
            return
        newest = seconds / tasks
        if self._mean is None or newest > self._mean:
            self._mean = newest
        else:
            self._mean += _WEIGHT * (newest - self._mean)
        ahead = int(_HORIZON / max(self._mean, 1e-9))
        least = max(self._slots, self.size // 2) if newest < _TINY else self._slots
        self.size = max(least, min(self._slots * ahead, self.size * 2, _MOST))

    def collapse(self) -> None:
        """A task turned out long: hold no more than can be in progress."""
        if self.adaptive:
            self._mean = _HORIZON
            self.size = self._slots
