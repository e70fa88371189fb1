"""The children of a done task: a function of the rules and the done task alone, but for the moment they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from task.codec import encode
from task.errors import TaskError
from task.outcome import Result
from task.task import Task, derive_id
from task.times import parse_time
from taskmasters.on_done.chain import on_cycles
from taskmasters.on_done.joins import Join, Part, Parts
from taskmasters.on_done.rules import DEPTH_KEY, PARENT_KEY, PARENTS_KEY, ROOT_KEY, OnDoneRule
from taskmasters.templates import TIME, MissingValueError, Scope

__all__ = ["Child", "Children", "Family"]

#: Types whose rules are remembered; types come from messages, so there might be any number.
_MOST_TYPES = 10_000
_CRON = "cron"


class Child(NamedTuple):
    """A task to be sent. ``delay`` is seconds, ``rule`` the id of the rule that made it."""

    topic: str
    id: str
    body: bytes
    delay: float
    rule: str


@dataclass(slots=True)
class Children:
    """What becomes of one done task: its children, how many rules matched, and what was wrong, by rule."""

    found: list[Child]
    matched: int
    problems: list[str]


class Family:
    """All enabled rules, ready to be asked."""

    def __init__(self, rules: Sequence[OnDoneRule]) -> None:
        self._rules = [rule for rule in rules if rule.enabled]
        self._counted = on_cycles(self._rules)
        self._timed = frozenset(rule.id for rule in self._rules if rule.uses_time)
        self._by_type: dict[str, tuple[OnDoneRule, ...]] = {}

    def made(self, parent: Task, parent_id: str, result: Result, joins: Sequence[Join], now: float) -> Children:
        """All children of a done task at the moment ``now``: its own, and those of the joins it makes complete."""
        made = self.children(parent, parent_id, result, now)
        for join in joins:
            joined = self.joined(join.rule, join.key, join.parents, now)
            made.found += joined.found
            made.matched += joined.matched
            made.problems += joined.problems
        return made

    def children(self, parent: Task, parent_id: str, result: Result, now: float) -> Children:
        """The children of a done task, all rules considered. A rule that fails does not hold up the others."""
        children = Children([], 0, [])
        for rule in self._rules_for(parent.type):
            if rule.gather is None and rule.matches[0].rest(parent, result):
                children.matched += 1
                try:
                    children.found += self._make(rule, parent, parent_id, parent_id, now)
                except (TaskError, ValueError) as error:
                    children.problems.append(f"rule {rule.id}: {error}")
        return children

    @property
    def by_id(self) -> dict[str, OnDoneRule]:
        """The enabled rules."""
        return {rule.id: rule for rule in self._rules}

    @property
    def gathers(self) -> bool:
        """Whether any rule waits for several done tasks."""
        return any(rule.gather is not None for rule in self._rules)

    def parts(self, parent: Task, parent_id: str, result: Result) -> Parts:
        """Which rules have waited for this done task, and for what in it."""
        parts = Parts([], [])
        for rule in self._rules_for(parent.type):
            if rule.gather is None:
                continue
            for number, match in enumerate(rule.matches):
                if (match.type is None or match.type.match(parent.type)) and match.rest(parent, result):
                    try:
                        when = _moment(rule, parent.meta.get(_CRON)) if rule.gather.by.tokens & TIME.keys() else None
                        key = rule.gather.by.render(Scope(parent_id, when, parent.meta, parent))
                    except (TaskError, ValueError) as error:
                        parts.problems.append(f"rule {rule.id}: {error}")
                    else:
                        parts.found.append(Part(rule, key, number))
        return parts

    def joined(self, rule: OnDoneRule, key: str, parents: Sequence[tuple[Task, str]], now: float) -> Children:
        """The children of the done tasks that a rule has waited for, in its order; the first is the parent."""
        children = Children([], 1, [])
        parent, parent_id = parents[0]
        try:
            source = derive_id("join", rule.id, key)
            together = {PARENTS_KEY: ",".join(id for _, id in parents)}
            children.found += self._make(rule, parent, parent_id, source, now, together)
        except (TaskError, ValueError) as error:
            children.problems.append(f"rule {rule.id}: {error}")
        return children

    def _rules_for(self, kind: str) -> tuple[OnDoneRule, ...]:
        rules = self._by_type.get(kind)
        if rules is None:
            if len(self._by_type) >= _MOST_TYPES:
                self._by_type.clear()
            rules = tuple(
                rule
                for rule in self._rules
                if any(match.type is None or match.type.match(kind) for match in rule.matches)
            )
            self._by_type[kind] = rules
        return rules

    def _make(
        self,
        rule: OnDoneRule,
        parent: Task,
        parent_id: str,
        source: str,
        now: float,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Child]:
        """``source`` is what ids are derived from, and ``more`` what meta there is beside the usual."""
        meta = parent.meta
        kept = {key: value for key, value in meta.items() if rule.keep_meta.match(key)}
        given = {PARENT_KEY: parent_id, ROOT_KEY: meta.get(ROOT_KEY, parent_id), **more}
        if rule.id in self._counted:
            given[DEPTH_KEY] = _depth(rule, meta.get(DEPTH_KEY, "0"))
        when = _moment(rule, meta.get(_CRON)) if rule.id in self._timed else None
        scope = Scope(parent_id, when, meta, parent)
        children = []
        for index, item in enumerate(("",) if rule.items is None else rule.items.of(scope)):
            scope = Scope(derive_id("on-done", rule.id, source, str(index)), when, meta, parent, item, index)
            own = {key: template.render(scope) for key, template in rule.meta.items()}
            task = Task(
                rule.type,
                rule.task.render(scope),
                job=rule.job,
                created=datetime.fromtimestamp(now, UTC),
                id=scope.id,
                meta={**kept, **own, **given},
                dialect=parent.dialect,
            )
            children.append(Child(rule.topic, scope.id, encode(task), rule.delay, rule.id))
        return children


def _depth(rule: OnDoneRule, before: str) -> str:
    try:
        depth = int(before) + 1
    except ValueError:
        raise ValueError(f"the parent's meta {DEPTH_KEY!r} is {before[:20]!r}, not a number") from None
    if rule.max_depth is not None and depth > rule.max_depth:
        raise ValueError(f"the cycle has gone round {rule.max_depth} times, which is its max_depth")
    return str(depth)


def _moment(rule: OnDoneRule, cron: str | None) -> datetime:
    if cron is None:
        raise MissingValueError(f"the parent has no meta {_CRON!r}, which the times in the rule are taken from")
    try:
        return (parse_time(cron) + timedelta(seconds=rule.offset)).astimezone(rule.zone.info)
    except (ValueError, OverflowError):
        raise ValueError(f"the parent's meta {_CRON!r} is {cron[:40]!r}, not a time") from None
