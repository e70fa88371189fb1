"""What is to be sent for the files that were seen: without a clock, a disk or a bus of its own.

It is told what was seen (``observe``), says what to write and to send (``plan``), and is told that this was committed
(``commit``). A plan that was not committed is made again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from task.codec import DEFAULT_MAX_SIZE
from taskmasters.files import tables
from taskmasters.files.entry import Entry, folder_of
from taskmasters.files.rules import FileRule
from taskmasters.files.tables import Row
from taskmasters.files.watched import Waiting, Watched
from taskmasters.store import Outgoing, outbox
from taskmasters.templates import MissingValueError

__all__ = ["FileEngine", "Plan"]

#: Files dealt with in one transaction.
_BATCH = 1000


@dataclass(slots=True)
class Plan:
    """What one transaction writes."""

    messages: list[Outgoing] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    went: list[tuple[str, str]] = field(default_factory=list)
    came: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    #: Rule, path or group, what it was, why no task could be made of it.
    problems: list[tuple[str, str, str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rows or self.went or self.came or self.dropped or self.begun or self.problems)

    def write(self, tx: Connection, now: float) -> None:
        """Write it. Doing so again changes nothing."""
        tables.mark_gone(tx, self.went, now)
        tables.mark_gone(tx, self.came, None)
        tables.drop(tx, self.dropped)
        tables.save(tx, self.rows)
        tables.begin(tx, self.begun, now)
        outbox.put(tx, *self.messages)


class FileEngine:
    """Decides for ``rules``. ``limit``: bytes of the largest task that is made."""

    def __init__(self, rules: Sequence[FileRule], limit: int = DEFAULT_MAX_SIZE) -> None:
        self.rules: Mapping[str, FileRule] = {rule.id: rule for rule in rules if rule.enabled}
        self._limit = limit
        self.watched: dict[str, Watched] = {}

    def open(self, tx: Connection, now: float, *, retire: bool = True) -> None:
        """Read what is known. The files of rules that are no more begin to be forgotten."""
        begun = tables.begun(tx)
        self.watched = {
            rule.id: Watched(rule, tables.read(tx, rule.id), begun=rule.id in begun) for rule in self.rules.values()
        }
        if retire:
            tables.retire(tx, list(self.rules), now)

    def observe(self, rule: str, entries: Iterable[Entry], began: float, now: float, *, complete: bool) -> None:
        """A look at the files of a rule, from ``began`` to ``now``, showed these; if ``complete``, no others."""
        self.watched[rule].observe(entries, began, now, complete=complete)

    def plan(self, now: float) -> Plan:
        """What to write and to send now. Empty if there is nothing."""
        plan = Plan()
        for watched in self.watched.values():
            plan.went += [(watched.rule.id, path) for path in watched.went]
            plan.came += [(watched.rule.id, path) for path in watched.came]
            plan.dropped += watched.dropped
            self._plan_first(plan, watched)
            for path in list(watched.ready)[: max(0, _BATCH - len(plan.rows))]:
                self._plan_file(plan, watched, watched.ready[path], now)
        if not plan.rows:
            # Files that were just put into a group are in it only after the commit.
            for watched in self.watched.values():
                for group in self._due(watched, now):
                    if len(plan.rows) < _BATCH:
                        self._plan_group(plan, watched, group, now)
        return plan

    def commit(self, plan: Plan) -> None:
        """The plan was written."""
        for rule, path in plan.went:
            self.watched[rule].went.discard(path)
        for rule, path in plan.came:
            self.watched[rule].came.discard(path)
        for rule, path in plan.dropped:
            self.watched[rule].dropped.discard((rule, path))
        for rule in plan.begun:
            self.watched[rule].begun = True
        for row in plan.rows:
            self._commit_row(self.watched[row.rule], row)
        for rule, what, version, why in plan.problems:
            watched = self.watched[rule]
            if what in watched.waiting:
                watched.stuck[what] = (version, why)
            else:
                watched.ready.pop(what, None)
                watched.problems[what] = (version, why)

    def forgotten(self, files: Iterable[tuple[str, str]]) -> None:
        """These are no longer stored."""
        for rule, path in files:
            if rule in self.watched:
                self.watched[rule].known.pop(path, None)
                self.watched[rule].gone.discard(path)

    def unsettled(self, rule: str, now: float) -> list[str]:
        """The paths of a rule that are to be looked at again at that moment."""
        return self.watched[rule].unsettled(now)

    def gone(self, rule: str, paths: Collection[str]) -> None:
        """These of them are not there any more."""
        self.watched[rule].unseen(paths)

    def wants_look(self, rule: str) -> bool:
        """Whether the next complete look should not wait for its time: a marker was just found."""
        return self.watched[rule].half_marked

    def wake(self, now: float) -> float | None:
        """The next moment at which :meth:`plan` may find more by itself."""
        return min(
            (moment for watched in self.watched.values() for moment in self._moments(watched, now)), default=None
        )

    def problems(self) -> Iterator[str]:
        """Of which files and groups no task could be made, and why."""
        for watched in self.watched.values():
            for _, why in (*watched.problems.values(), *watched.stuck.values()):
                yield why

    def _moments(self, watched: Watched, now: float) -> Iterator[float]:
        grouping = watched.rule.grouping
        if grouping is None:
            return
        for files in watched.waiting.values():
            moment = grouping.wake(*_span(files), now)
            if moment is not None:
                yield moment

    def _due(self, watched: Watched, now: float) -> list[str]:
        grouping = watched.rule.grouping
        if grouping is None:
            return []
        held = {watched.rule.group_of(one.entry) for one in watched.settling.values()} if watched.waiting else set()
        due = []
        for group, files in watched.waiting.items():
            marked = grouping.marker is not None and watched.marked({folder_of(path) for path in files})
            if group not in held and grouping.holds(len(files), *_span(files), marked, now):
                due.append(group)
        return due

    def _plan_first(self, plan: Plan, watched: Watched) -> None:
        """What was there before the rule was, if it is not wanted, is written down first, and then that it was."""
        if watched.begun or not watched.looked:
            return
        for path in list(watched.passed)[: max(0, _BATCH - len(plan.rows))]:
            plan.rows.append(Row(watched.rule.id, watched.passed[path], 0.0, "", ""))
        if not watched.passed:
            plan.begun.append(watched.rule.id)

    def _plan_file(self, plan: Plan, watched: Watched, entry: Entry, now: float) -> None:
        rule = watched.rule
        try:
            _check_name(entry.path)
            group = rule.group_of(entry)
            if rule.grouping is not None:
                plan.rows.append(Row(rule.id, entry, now, group, None))
                return
            task = rule.task_id(entry)
            body = self._fitting(rule.make(task, [entry], "", now))
        except (MissingValueError, _UnfitError) as error:
            plan.problems.append((rule.id, entry.path, entry.version, f"rule {rule.id}, {entry.path!r}: {error}"))
            return
        plan.messages.append(Outgoing(task, rule.topic, body, now))
        plan.rows.append(Row(rule.id, entry, now, "", task))

    def _plan_group(self, plan: Plan, watched: Watched, group: str, now: float) -> None:
        rule = watched.rule
        files = watched.waiting[group]
        entries = [files[path].entry for path in sorted(files)]
        task = rule.group_id(group, entries)
        if group in watched.stuck and watched.stuck[group][0] == task:
            return
        try:
            body = self._fitting(rule.make(task, entries, group, now))
        except (MissingValueError, _UnfitError) as error:
            plan.problems.append((rule.id, group, task, f"rule {rule.id}, group {group!r}: {error}"))
            return
        plan.messages.append(Outgoing(task, rule.topic, body, now))
        plan.rows += [Row(rule.id, entry, files[entry.path].arrived, group, task) for entry in entries]

    def _fitting(self, body: bytes) -> bytes:
        if len(body) > self._limit:
            raise _UnfitError(f"its task would have {len(body)} bytes, more than the limit of {self._limit}")
        return body

    def _commit_row(self, watched: Watched, row: Row) -> None:
        path, version = row.entry.path, row.entry.version
        ready = watched.ready.get(path)
        if ready is not None and ready.version == version:
            del watched.ready[path]
        watched.problems.pop(path, None)
        watched.passed.pop(path, None)
        if row.task is None:
            watched.wait(row)
            return
        watched.known[path] = version
        watched.gone.discard(path)
        waiting = watched.waits(path)
        if waiting is not None and waiting.entry.version == version:
            watched.leave(path)


class _UnfitError(ValueError):
    """No task can be made of it."""


def _span(files: Mapping[str, Waiting]) -> tuple[float, float]:
    arrived = [one.arrived for one in files.values()]
    return min(arrived), max(arrived)


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise _UnfitError("its name is not UTF-8, which a task cannot hold: rename it") from None
