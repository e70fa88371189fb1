"""Noting in the state what was published, when nothing is to be: one write at a time, of all there is to note.

So it lags behind what was published. Should the process die then, what was not noted is published again, with the same
id, as it is when it dies just before a note that does not lag. Where there is always something to be published the lag
is a second, and the time of a write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from taskmasters.cron.state import Fired, State, StateError

__all__ = ["Notes"]

_log = logging.getLogger("taskbus.cron")
#: Seconds after the beginning of a write in which no other begins beside publishing.
_PAUSE = 1.0


class Notes:
    """Writes to ``state``. What a write that failed should have noted, the next one does."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._unwritten: dict[str, Fired] = {}
        #: Whether there is anything that was not tried yet.
        self._new = False
        self._writing: asyncio.Task[None] | None = None
        self._began = time.monotonic()

    def add(self, fired: Iterable[Fired]) -> None:
        """Have the latest instants of these rules noted soon."""
        self._unwritten.update({entry[0]: entry for entry in fired})
        self._new = True
        if time.monotonic() - self._began > _PAUSE:
            self.begin()

    def begin(self) -> None:
        """Have noted what there is, unless a write is under way."""
        if self._new and (self._writing is None or self._writing.done()):
            self._ended()
            self._began = time.monotonic()
            self._writing = asyncio.create_task(self._write())

    async def written(self) -> None:
        """Return once it was tried to note everything."""
        while self._new or (self._writing is not None and not self._writing.done()):
            self.begin()
            if self._writing is not None:
                await asyncio.wait([self._writing])
        self._ended()

    def close(self) -> None:
        """Begin no other write."""
        if self._writing is not None:
            self._writing.cancel()

    def _ended(self) -> None:
        """Raise what nobody expected of a write."""
        if self._writing is not None and not self._writing.cancelled():
            self._writing.result()

    async def _write(self) -> None:
        self._new = False
        some, self._unwritten = self._unwritten, {}
        try:
            await asyncio.to_thread(self._state.write, list(some.values()))
        except StateError as error:
            # Of a rule that has fired since, the later instant counts.
            self._unwritten = some | self._unwritten
            _log.error("after a restart these tasks may be sent again, with the same ids: %s", error)
