"""What is known of the files of one rule, and what a look at them changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from taskmasters.files.entry import Entry, folder_of
from taskmasters.files.rules import Again, FileRule
from taskmasters.files.tables import Row

__all__ = ["Settling", "Waiting", "Watched"]


class Settling(NamedTuple):
    """A file that is there in this version since then."""

    entry: Entry
    since: float


class Waiting(NamedTuple):
    """A file that waits for its group."""

    entry: Entry
    arrived: float


class Watched:
    """The files of ``rule``. ``begun`` says whether its first look was dealt with already."""

    def __init__(self, rule: FileRule, rows: Iterable[Row], *, begun: bool) -> None:
        self.rule = rule
        self.begun = begun
        #: Path → the version that was dealt with.
        self.known: dict[str, str] = {}
        #: Those of them that are not there now.
        self.gone: set[str] = set()
        #: Group → path → the file.
        self.waiting: dict[str, dict[str, Waiting]] = {}
        #: Path → the group it waits in.
        self._groups: dict[str, str] = {}
        self.settling: dict[str, Settling] = {}
        #: Settled and not yet dealt with.
        self.ready: dict[str, Entry] = {}
        #: There before the rule was, and not wanted.
        self.passed: dict[str, Entry] = {}
        #: Known files that went or came back, and waiting ones that went, since this was last stored.
        self.went: set[str] = set()
        self.came: set[str] = set()
        self.dropped: set[tuple[str, str]] = set()
        #: Path → the version no task could be made of, and why; group → the id its task would have had, and why.
        self.problems: dict[str, tuple[str, str]] = {}
        self.stuck: dict[str, tuple[str, str]] = {}
        #: Folder → number of the complete look its marker was first seen in.
        self._markers: dict[str, int] = {}
        #: Complete looks that were observed.
        self._looks = 0
        for row in rows:
            if row.task is None:
                self.wait(row)
                continue
            self.known[row.entry.path] = row.entry.version
            if row.gone:
                self.gone.add(row.entry.path)

    def wait(self, row: Row) -> None:
        """A file waits for its group from now on."""
        self.leave(row.entry.path)
        self._groups[row.entry.path] = row.group
        self.waiting.setdefault(row.group, {})[row.entry.path] = Waiting(row.entry, row.arrived)

    def leave(self, path: str) -> None:
        """A file waits no more."""
        group = self._groups.pop(path, None)
        if group is not None:
            del self.waiting[group][path]
            if not self.waiting[group]:
                del self.waiting[group]
                self.stuck.pop(group, None)

    def waits(self, path: str) -> Waiting | None:
        """The file of that path that waits for its group."""
        group = self._groups.get(path)
        return None if group is None else self.waiting[group][path]

    def observe(self, entries: Iterable[Entry], began: float, now: float, *, complete: bool) -> None:
        """A look from ``began`` to ``now`` showed these. ``complete``: and nothing else was there."""
        seen: set[str] = set()
        markers: set[str] = set()
        for entry in entries:
            path, version = entry.path, entry.version
            if self.known.get(path) == version and path not in self.gone and path not in self.settling:
                # Nearly all, nearly always: the rule need not be asked.
                seen.add(path)
                continue
            if self.rule.is_marker(path):
                markers.add(folder_of(path))
            if self.rule.wants(entry, now):
                seen.add(path)
                self._see(entry, began, now, complete)
        if complete:
            self._looks += 1
            self._markers = {folder: self._markers.get(folder, self._looks) for folder in markers}
            self._miss(seen, now)

    def unseen(self, paths: Collection[str]) -> None:
        """These are not there any more."""
        for path in paths:
            self.settling.pop(path, None)

    def marked(self, folders: Iterable[str]) -> bool:
        """Whether a marker is there and all that was there before it was seen: that takes one more look."""
        return any(self._markers.get(folder, self._looks) < self._looks for folder in folders)

    @property
    def looked(self) -> bool:
        """Whether there was a complete look."""
        return self._looks > 0

    @property
    def half_marked(self) -> bool:
        """Whether a marker was seen for the first time in the latest look."""
        return any(look == self._looks for look in self._markers.values())

    def unsettled(self, now: float) -> list[str]:
        """The paths to be looked at again at that moment."""
        return [path for path, one in self.settling.items() if one.since + self.rule.settle <= now]

    def wake(self) -> float | None:
        """When the next of them is to be looked at again."""
        return min((one.since + self.rule.settle for one in self.settling.values()), default=None)

    def _see(self, entry: Entry, began: float, now: float, complete: bool) -> None:
        path, version = entry.path, entry.version
        known = self.known.get(path)
        if known is not None and (known == version or self.rule.again is Again.NEVER):
            self.settling.pop(path, None)
            if path in self.gone:
                self.gone.discard(path)
                self.went.discard(path)
                self.came.add(path)
            return
        waiting, ready, problem = self.waits(path), self.ready.get(path), self.problems.get(path)
        if (
            (waiting is not None and waiting.entry.version == version)
            or (ready is not None and ready.version == version)
            or (problem is not None and problem[0] == version)
        ):
            self.settling.pop(path, None)
            return
        if not self.begun and not self.rule.existing:
            if complete:
                self.passed[path] = entry
            return
        before = self.settling.get(path)
        since = now if before is None or before.entry.version != version else before.since
        # A clock that was set back must not make it wait for ever.
        since = min(since, now)
        # From the end of the look that first showed it to the beginning of this one.
        if not self.rule.settle or began >= since + self.rule.settle:
            self.settling.pop(path, None)
            self.ready[path] = entry
        else:
            self.settling[path] = Settling(entry, since)

    def _miss(self, seen: set[str], now: float) -> None:
        for path in self.settling.keys() - seen:
            del self.settling[path]
        for path in self.problems.keys() - seen:
            del self.problems[path]
        missing = self.known.keys() - seen - self.gone
        self.gone |= missing
        self.went |= missing
        self.came -= missing
        for path in self._groups.keys() - seen:
            one = self.waits(path)
            # What has left the window was not looked for: it still waits.
            if one is not None and self.rule.wants(one.entry, now):
                self.leave(path)
                self.dropped.add((self.rule.id, path))
