"""What happened, counted by rule, type, job and kind, and the rhythm in which a rule is told of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, delete, insert, select, update

from task.task import Task, derive_id
from task.times import format_time, parse_time
from taskmasters.alerts.rules import AlertRule, Kind
from taskmasters.alerts.tables import groups, rhythms
from taskmasters.files.pathtime import path_time
from taskmasters.zone import find_zone

__all__ = ["Happening", "add", "collect", "due_rules", "inherit", "wake"]

#: Moments and examples kept of a group, and characters of an example's texts.
_MOMENTS, _EXAMPLES, _LONGEST = 2000, 5, 300


class Happening(NamedTuple):
    """Something that went wrong. ``id`` is the same however often it is delivered."""

    id: str
    kind: Kind
    task: Task
    task_id: str
    msg: str


def add(tx: Connection, rule: AlertRule, happenings: Sequence[Happening], now: float) -> None:
    """Count these for a rule, and decide when it is told."""
    by_group: dict[str, list[Happening]] = {}
    for one in happenings:
        by_group.setdefault(derive_id("alerts", one.task.type, one.task.job or "", one.kind), []).append(one)
    for group, some in by_group.items():
        mine = (groups.c.rule == rule.id) & (groups.c.id == group)
        row = tx.execute(select(groups).where(mine)).one_or_none()
        body: dict[str, Any] = _empty(some[0]) if row is None else orjson.loads(row.body)
        for one in some:
            _extend(body, one, now)
        total = len(some) + (0 if row is None else row.total)
        values = {"total": total, "last": now, "body": orjson.dumps(body)}
        if row is None:
            tx.execute(insert(groups), {"rule": rule.id, "id": group, "first": now, **values})
        else:
            tx.execute(update(groups).where(mine).values(**values))
    _set_due(tx, rule, now)


def due_rules(tx: Connection, now: float) -> list[str]:
    """The rules that are to be told of now."""
    return list(tx.execute(select(rhythms.c.rule).where(rhythms.c.due <= now)).scalars())


def wake(tx: Connection) -> float | None:
    """When the next rule is to be told of."""
    return tx.execute(select(rhythms.c.due).where(rhythms.c.due.is_not(None)).order_by(rhythms.c.due).limit(1)).scalar()


def inherit(tx: Connection, rules: Sequence[AlertRule], now: float) -> int:
    """What was counted for rules that are no more counts for the first of ``rules``. Returns how many groups did."""
    if not rules:
        return 0
    heir, known = rules[0], [rule.id for rule in rules]
    found = tx.execute(select(groups).where(groups.c.rule.not_in(known)).order_by(groups.c.first, groups.c.id)).all()
    for row in found:
        mine = (groups.c.rule == heir.id) & (groups.c.id == row.id)
        there = tx.execute(select(groups).where(mine)).one_or_none()
        if there is None:
            values = {"id": row.id, "total": row.total, "first": row.first, "last": row.last, "body": row.body}
            tx.execute(insert(groups), {"rule": heir.id, **values})
        else:
            first, last = min(row.first, there.first), max(row.last, there.last)
            tx.execute(update(groups).where(mine).values(total=row.total + there.total, first=first, last=last))
    tx.execute(delete(groups).where(groups.c.rule.not_in(known)))
    tx.execute(delete(rhythms).where(rhythms.c.rule.not_in(known)))
    if found:
        _set_due(tx, heir, now)
    return len(found)


def collect(tx: Connection, rule: str, now: float) -> dict[str, Any]:
    """What is to be told of a rule, which counts from nothing again."""
    found = tx.execute(select(groups).where(groups.c.rule == rule).order_by(groups.c.first, groups.c.id)).all()
    tx.execute(delete(groups).where(groups.c.rule == rule))
    mine = rhythms.c.rule == rule
    tx.execute(update(rhythms).where(mine).values(due=None, told=now, silence=rhythms.c.following))
    told = []
    for row in found:
        body = orjson.loads(row.body)
        told.append({**body, "count": row.total, "first": _text(row.first), "last": _text(row.last)})
    return {"rule": rule, "time": _text(now), "count": sum(row.total for row in found), "groups": told}


def _set_due(tx: Connection, rule: AlertRule, now: float) -> None:
    mine = rhythms.c.rule == rule.id
    row = tx.execute(select(rhythms).where(mine)).one_or_none()
    if row is None:
        values = {"due": now + rule.collect, "told": None, "silence": 0.0, "following": rule.min_interval}
        tx.execute(insert(rhythms), {"rule": rule.id, **values})
    elif row.due is None:
        quiet = row.told is None or now >= row.told + row.silence
        if quiet:
            due, following = now + rule.collect, rule.min_interval
        else:
            # It goes on: told when the silence ends, and then not for twice as long.
            due = max(row.told + row.silence, now + rule.collect)
            following = max(rule.min_interval, min(2 * row.silence, rule.max_interval))
        tx.execute(update(rhythms).where(mine).values(due=due, following=following))


def _empty(one: Happening) -> dict[str, Any]:
    return {"type": one.task.type, "job": one.task.job, "kind": str(one.kind), "moments": [], "examples": []}


def _extend(body: dict[str, Any], one: Happening, now: float) -> None:
    moment = _moment(one.task)
    if moment is not None and moment not in body["moments"] and len(body["moments"]) < _MOMENTS:
        body["moments"].append(moment)
    example = {
        "id": one.task_id,
        "task": _cut(one.task.value),
        "msg": _cut(one.msg),
        "time": _text(now),
    }
    if len(body["examples"]) < _EXAMPLES:
        body["examples"].append(example)
    else:
        # The first ones, and the last.
        body["examples"][-1] = example


def _moment(task: Task) -> str | None:
    """The moment a task is about: its meta ``cron``, else what its value tells."""
    try:
        found = parse_time(task.meta["cron"]) if "cron" in task.meta else path_time(task.value, find_zone("UTC"))
    except ValueError:
        return None
    return None if found is None else found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _text(moment: float) -> str:
    return format_time(datetime.fromtimestamp(moment, UTC))
