"""The ledger: what was attempted, accepted, executed, reported done and dead-lettered, kept outside the bus.

Each process appends to a file of its own, one line for each event: ``ID PID SECONDS``. A line is written by one
``write`` and synced before its writer goes on, so that neither a killed process nor a stopped machine takes it back.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

__all__ = ["Event", "Ledger", "Pen"]


class Event(StrEnum):
    """What happened to a task."""

    #: Its publish began. Once for each try, so that more of them than one tell of publishes whose outcome was unknown.
    ATTEMPTED = "attempted"
    #: Its publish was confirmed.
    ACCEPTED = "accepted"
    #: A worker's user code began it.
    EXECUTED = "executed"
    #: It ended with an error, as the task asked: that it is begun once more is no duplicate.
    FAILED = "failed"
    #: One more message with the same task was confirmed, on purpose: it has to be executed once more.
    COPIED = "copied"
    #: Its done task was received.
    DONE = "done"
    #: A dead letter of it was received.
    DEAD = "dead"


class Pen:
    """Writes one kind of event for one process, or for ``writer``."""

    def __init__(self, folder: Path, event: Event, writer: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{event}.{writer or os.getpid()}"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, ids: Sequence[str]) -> None:
        """Note that it happened to these, in this order; on disk when this returns."""
        if not ids:
            return
        now = f"{os.getpid()} {time.time():.3f}"
        os.write(self._file, "".join(f"{id} {now}\n" for id in ids).encode())
        os.fdatasync(self._file)


class Ledger:
    """Reads what all processes wrote. Cheap to ask again and again: only what is new is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}
        self._counts: dict[Event, Counter[str]] = {event: Counter() for event in Event}
        self._order: list[str] = []

    def count(self, event: Event) -> Counter[str]:
        """How often it happened, for each id."""
        self._refresh()
        return self._counts[event]

    def accepted(self) -> list[str]:
        """Ids whose publish was confirmed, in about that order."""
        self._refresh()
        return list(self._order)

    def pending(self) -> set[str]:
        """What was accepted and has neither a done task nor a dead letter, or a copy that was not begun."""
        self._refresh()
        counts = self._counts
        executed, failed = counts[Event.EXECUTED], counts[Event.FAILED]
        waiting = counts[Event.ACCEPTED].keys() - counts[Event.DONE].keys() - counts[Event.DEAD].keys()
        return waiting | {id for id, more in counts[Event.COPIED].items() if executed[id] - failed[id] < 1 + more}

    def _refresh(self) -> None:
        for path in sorted(self.folder.glob("*.*")):
            event = Event(path.name.partition(".")[0])
            start = self._read.get(path, 0)
            if path.stat().st_size == start:
                continue
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = start + len(whole)
            ids = [line.split()[0] for line in whole.decode().splitlines()]
            if event is Event.ACCEPTED:
                self._order += [id for id in ids if id not in self._counts[event]]
            self._counts[event].update(ids)
