"""What becomes of done tasks, of tasks with a deadline, and of time that passes: without clock, bus or network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update

from bus.units import format_duration
from task.codec import DEFAULT_MAX_SIZE, decode, encode
from task.outcome import Result
from task.task import Task, derive_id
from task.times import format_time
from taskmasters.alerts import happening
from taskmasters.alerts.happening import Happening
from taskmasters.alerts.rules import AlertFile, AlertRule, Deadline, Kind
from taskmasters.alerts.tables import events, notices, tasks
from taskmasters.store import Arrival, Fate
from taskmasters.store.schema import insert_new

__all__ = ["FATES", "AlertEngine"]

#: What may become of a message.
FATES = ("told", "passed", "repeated", "watched", "in-time", "no-id", "dead")
_KINDS = {Result.ALERT: Kind.ALERT, Result.ERROR: Kind.ERROR, Result.WARN: Kind.WARN}
#: Meta that a task has anew each time it is sent again: so every try has a deadline of its own.
_RETRY = ("retry",)
_MAX_SIZE = 4 * DEFAULT_MAX_SIZE
#: Rows of a statement, and late tasks told of in one transaction.
_ROWS, _LATE = 400, 500


class AlertEngine:
    """Decides by the rules in ``file``. Every method may be called again with the same: it changes nothing then."""

    def __init__(self, file: AlertFile) -> None:
        self.file = file
        self._rules = [rule for rule in file.rules if rule.enabled]
        self._deadlines = [deadline for deadline in file.deadlines if deadline.enabled]

    @property
    def topics(self) -> dict[str, list[str]]:
        """The topics whose tasks have deadlines, each with the groups that do them."""
        found: dict[str, list[str]] = {}
        for deadline in self._deadlines:
            found.setdefault(deadline.topic, []).append(deadline.workers)
        return found

    def concerns(self, arrival: Arrival) -> bool:
        """Whether :meth:`done` has to look at a done task."""
        kind = _KINDS.get(arrival.task.result) if arrival.task.result else None
        return self._wanted(kind, arrival.task) or self._timed(arrival.task)

    def done(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Tasks that are done."""
        self._finish(
            tx, [_key(arrival) for arrival in arrivals if arrival.task.result and self._timed(arrival.task)], now
        )
        found: list[Happening | None] = []
        for task, id in arrivals:
            kind = _KINDS.get(task.result) if task.result else None
            if kind is None or not self._wanted(kind, task):
                found.append(None)
                continue
            found.append(Happening(_event("done", task, id), kind, task, id, task.msg))
        return self._tell(tx, found, now)

    def exhausted(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Tasks that failed and will not be retried any more."""
        found = [
            Happening(_event("exhausted", task, id), Kind.EXHAUSTED, task, id, task.msg)
            if self._wanted(Kind.EXHAUSTED, task)
            else None
            for task, id in arrivals
        ]
        return self._tell(tx, found, now)

    def sent(self, topic: str) -> Callable[[Connection, Sequence[Arrival], float], list[Fate]]:
        """What becomes of tasks that were sent to a topic."""

        def watch(tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
            fates, rows = [], []
            for arrival in arrivals:
                deadline = next((d for d in self._deadlines if d.topic == topic and d.wants(arrival.task)), None)
                if deadline is None:
                    fates.append(Fate("passed"))
                elif not arrival.task.id:
                    # Its done task will have an id that the worker gave it.
                    fates.append(Fate("no-id"))
                else:
                    rows.append(_row(arrival, deadline, now))
                    fates.append(Fate("watched"))
            for start in range(0, len(rows), _ROWS):
                insert_new(tx, tasks, rows[start : start + _ROWS])
            return fates

        return watch

    def tick(self, tx: Connection, now: float, horizon: float) -> bool:
        """Time has passed. Returns whether there is more to do at once.

        ``horizon``: what was done before that moment is known; of what should have been done later nothing is told yet.
        """
        over = tasks.c.deadline <= min(now, horizon)
        late = tx.execute(select(tasks.c.id, tasks.c.rule, tasks.c.body).where(over).limit(_LATE)).all()
        within = {deadline.id: deadline.within for deadline in self._deadlines}
        found: list[Happening | None] = []
        for row in late:
            if row.rule not in within:
                continue
            task = decode(row.body, _MAX_SIZE)
            msg = f"not done within {format_duration(within[row.rule])}"
            found.append(Happening(derive_id("unfinished", row.id), Kind.UNFINISHED, task, task.id or "", msg))
        self._tell(tx, found, now)
        self._close(tx, [row.id for row in late], now)
        for rule in happening.due_rules(tx, now):
            self._notify(tx, rule, now)
        return len(late) == _LATE

    def wake(self, tx: Connection) -> float | None:
        """The next moment :meth:`tick` has something to do."""
        deadline = tx.execute(select(func.min(tasks.c.deadline))).scalar()
        return min((moment for moment in (deadline, happening.wake(tx)) if moment is not None), default=None)

    def forget(self, tx: Connection, before: float) -> None:
        """Forget what was told, counted or done before that moment."""
        tx.execute(delete(events).where(events.c.at < before))
        tx.execute(delete(tasks).where(tasks.c.at < before, tasks.c.deadline.is_(None)))
        tx.execute(delete(notices).where(notices.c.made < before, notices.c.due.is_(None)))

    def waiting(self, tx: Connection) -> int:
        """How many tasks with a deadline are not done."""
        return tx.execute(select(func.count()).select_from(tasks).where(tasks.c.deadline.is_not(None))).scalar_one()

    def _wanted(self, kind: Kind | None, task: Task) -> bool:
        return kind is not None and any(rule.wants(kind, task) for rule in self._rules)

    def _timed(self, task: Task) -> bool:
        return any(deadline.wants(task) for deadline in self._deadlines)

    def _finish(self, tx: Connection, keys: Sequence[str], now: float) -> None:
        """These are done. One that was not seen yet is remembered as done, since its topic may be read later."""
        self._close(tx, keys, now)
        rows = [{"id": key, "deadline": None, "at": now, "rule": "", "body": b""} for key in dict.fromkeys(keys)]
        for start in range(0, len(rows), _ROWS):
            insert_new(tx, tasks, rows[start : start + _ROWS])

    def _close(self, tx: Connection, keys: Sequence[str], now: float) -> None:
        for start in range(0, len(keys), _ROWS):
            some = keys[start : start + _ROWS]
            tx.execute(update(tasks).where(tasks.c.id.in_(some)).values(deadline=None, at=now))

    def _tell(self, tx: Connection, found: Sequence[Happening | None], now: float) -> list[Fate]:
        known = _known(tx, [one.id for one in found if one is not None])
        new: dict[str, Happening] = {}
        fates = []
        for one in found:
            if one is None:
                fates.append(Fate("passed"))
            elif one.id in known or one.id in new:
                fates.append(Fate("repeated"))
            else:
                new[one.id] = one
                fates.append(Fate("told"))
        if new:
            tx.execute(insert(events), [{"id": id, "at": now} for id in new])
        for rule in self._rules:
            wanted = [one for one in new.values() if rule.wants(one.kind, one.task)]
            if wanted:
                happening.add(tx, rule, wanted, now)
        return fates

    def _notify(self, tx: Connection, rule_id: str, now: float) -> None:
        told = happening.collect(tx, rule_id, now)
        rule: AlertRule | None = next((rule for rule in self._rules if rule.id == rule_id), None)
        # What a rule that is no more had counted is told nobody.
        if rule is None or not told["count"]:
            return
        for channel in rule.to:
            id = derive_id("notice", rule_id, channel, format_time(datetime.fromtimestamp(now, UTC)))
            body = orjson.dumps({"id": id, **told})
            values = {"id": id, "channel": channel, "body": body, "due": now, "made": now, "tries": 0, "error": ""}
            insert_new(tx, notices, [values])


def _event(what: str, task: Task, id: str) -> str:
    """The same for one end of a task, however often it is told."""
    completed = format_time(task.completed) if task.completed else ""
    return derive_id(what, id, str(task.result), completed, *(task.meta.get(key, "") for key in _RETRY))


def _key(arrival: Arrival) -> str:
    return derive_id("deadline", arrival.id, *(arrival.task.meta.get(key, "") for key in _RETRY))


def _row(arrival: Arrival, deadline: Deadline, now: float) -> dict[str, object]:
    return {
        "id": _key(arrival),
        "deadline": now + deadline.within,
        "at": now,
        "rule": deadline.id,
        "body": encode(arrival.task),
    }


def _known(tx: Connection, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(ids), _ROWS):
        found.update(_scalars(tx, ids[start : start + _ROWS]))
    return found


def _scalars(tx: Connection, ids: Sequence[str]) -> Iterable[str]:
    return tx.execute(select(events.c.id).where(events.c.id.in_(ids))).scalars()
