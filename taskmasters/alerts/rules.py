"""The rule file of the alerts taskmaster: channels, rules and deadlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bus import BadNameError, check_group, check_topic
from bus.url import nearest
from task.document import load_document
from task.outcome import Result
from task.task import Task
from taskmasters.alerts.channels import Channel, read_channel
from taskmasters.on_done.patterns import Match, Texts
from taskmasters.rules import Place, Problems, RuleTable

__all__ = ["AlertFile", "AlertRule", "Deadline", "Kind", "load_alerts"]

#: Characters of the longest id.
_ID_LENGTH = 100


class Kind(StrEnum):
    """What may have gone wrong."""

    ALERT = "alert"  #: a task ended with alert
    ERROR = "error"
    WARN = "warn"
    EXHAUSTED = "exhausted"  #: a task failed, and will not be retried any more
    UNFINISHED = "unfinished"  #: a task was not done by its deadline


_DEFAULT = frozenset((Kind.ALERT, Kind.EXHAUSTED, Kind.UNFINISHED))


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """What is told to which channels. ``collect``, ``min_interval`` and ``max_interval`` are seconds."""

    id: str
    kinds: frozenset[Kind]
    match: Match
    to: tuple[str, ...]
    collect: float
    min_interval: float
    max_interval: float
    enabled: bool
    place: Place

    def wants(self, kind: Kind, task: Task) -> bool:
        """Whether it is told."""
        return kind in self.kinds and _fits(self.match, task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """Tasks of ``topic`` are to be done ``within`` seconds after they were seen there.

    ``workers`` is the group that does them.
    """

    id: str
    topic: str
    workers: str
    match: Match
    within: float
    enabled: bool
    place: Place

    def wants(self, task: Task) -> bool:
        """Whether a task has this deadline."""
        return _fits(self.match, task)


@dataclass(frozen=True, slots=True)
class AlertFile:
    """All of a file."""

    channels: tuple[Channel, ...]
    rules: tuple[AlertRule, ...]
    deadlines: tuple[Deadline, ...]


def load_alerts(path: str) -> AlertFile:
    """Read a file. Raises SettingsError naming every mistake."""
    document = load_document(path)
    problems = Problems(document)
    top = RuleTable(document.data, (), problems)
    channels = [read_channel(table) for table in top.tables("channel")]
    rules = [_rule(table, [channel.id for channel in channels]) for table in top.tables("rule")]
    deadlines = [_deadline(table) for table in top.tables("deadline")]
    top.finish()
    if not rules:
        problems.add((), "there is no [[rule]] in it")
    if not channels:
        problems.add((), "there is no [[channel]] in it")
    for some in (channels, rules, deadlines):
        _check_ids(some, problems)
    if not problems:
        watched = any(Kind.UNFINISHED in rule.kinds and rule.enabled for rule in rules)
        for deadline in deadlines:
            if not watched:
                problems.add(deadline.place, 'no rule tells of it: give one with on = ["unfinished"]')
    problems.check()
    return AlertFile(tuple(channels), tuple(rules), tuple(deadlines))


def _rule(table: RuleTable, channels: list[str]) -> AlertRule:
    kinds = _kinds(table)
    match, said = _match(table)
    shortest = table.duration("min_interval", 300.0)
    rule = AlertRule(
        id=table.text("id") or f"{said} {','.join(sorted(kinds))}",
        kinds=kinds,
        match=match,
        to=_to(table, channels),
        collect=table.duration("collect", 10.0),
        min_interval=shortest,
        max_interval=table.duration("max_interval", max(16 * 300.0, shortest)),
        enabled=table.flag("enabled", True),
        place=table.place,
    )
    if rule.max_interval < rule.min_interval:
        table.wrong("max_interval", "must not be less than min_interval")
    table.finish()
    return rule


def _deadline(table: RuleTable) -> Deadline:
    match, said = _match(table)
    topic = table.required("topic")
    try:
        topic = check_topic(topic) if topic else ""
    except BadNameError as error:
        table.wrong("topic", str(error))
        topic = ""
    workers = table.text("workers") or topic
    try:
        workers = check_group(workers) if workers else ""
    except BadNameError as error:
        table.wrong("workers" if "workers" in table else "topic", str(error))
    if "within" not in table:
        table.missing("within", "how soon its tasks are to be done")
    within = table.duration("within", 1.0)
    if not within:
        table.wrong("within", "must be longer than nothing")
    deadline = Deadline(
        id=table.text("id") or f"{topic} {said}",
        topic=topic,
        workers=workers,
        match=match,
        within=within,
        enabled=table.flag("enabled", True),
        place=table.place,
    )
    table.finish()
    return deadline


def _kinds(table: RuleTable) -> frozenset[Kind]:
    given = table.texts("on")
    if given is None:
        return _DEFAULT
    for text in given:
        if text not in set(Kind):
            table.wrong("on", f"{text!r} is nothing to tell of{nearest(text, list(map(str, Kind)))}")
            return _DEFAULT
    return frozenset(map(Kind, given))


def _match(table: RuleTable) -> tuple[Match, str]:
    given = table.table("match")
    types, jobs, values = given.texts("type"), given.texts("job"), given.texts("value")
    wanted = given.table("meta")
    match = Match(
        type=Texts(types) if types else None,
        job=Texts(jobs) if jobs else None,
        value=Texts(values) if values else None,
        results=frozenset(Result),
        meta={key: Texts(texts) for key in wanted if (texts := wanted.texts(key))},
    )
    wanted.finish()
    given.finish()
    return match, ",".join(types or ("*",)) + (":" + ",".join(jobs) if jobs else "")


def _to(table: RuleTable, channels: list[str]) -> tuple[str, ...]:
    given = table.texts("to")
    if given is None:
        table.missing("to", "the ids of the channels it tells")
        return ()
    for text in given:
        if text not in channels:
            table.wrong("to", f"there is no channel {text!r}{nearest(text, channels)}")
    return given


def _check_ids(some: Sequence[Channel] | Sequence[AlertRule] | Sequence[Deadline], problems: Problems) -> None:
    seen: set[str] = set()
    for one in some:
        if one.id in seen:
            problems.add(one.place, f"one before it is called {one.id!r} too: give each an id of its own")
        if len(one.id) > _ID_LENGTH:
            problems.add(one.place, f"its id is longer than {_ID_LENGTH} characters")
        seen.add(one.id)


def _fits(match: Match, task: Task) -> bool:
    return match.produced_by(task.type, task.job) and match.rest(task, Result.COMPLETE)
