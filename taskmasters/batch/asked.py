"""From what somebody asks for, in texts, to the plan of a batch. The command and the service ask alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from bus import BadNameError, check_topic
from bus.units import parse_duration
from task.errors import TaskError
from task.task import Dialect
from taskmasters.batch.moments import Step, moments, parse_hours, parse_moment
from taskmasters.batch.plan import META_TOKENS, TASK_TOKENS, Plan
from taskmasters.cron.rules import CronRule
from taskmasters.rules import no_word
from taskmasters.templates import Template
from taskmasters.workflow.definition import Workflow
from taskmasters.zone import Zone, find_zone

__all__ = ["REQUESTS", "Asked", "AskedError", "make_plan"]

#: Topic where the workflow taskmaster takes requests from, unless told otherwise.
REQUESTS = "requests"
#: Steps between moments, at most.
_MOST_STEPS = 10_000
Read = TypeVar("Read")
Moments = Callable[[], Iterable[int]]
Rows = Callable[[], Iterable[Mapping[str, str]]]


class AskedError(TaskError):
    """What is asked for is no batch; the text says which part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for, each as its option of ``taskbus taskmaster batch`` takes it. None: not said.

    ``rule`` lends type, templates, topic, zone and instants. ``workflow``: the tasks ask for runs of it.
    """

    id: str
    type: str | None = None
    task: str | None = None
    job: str | None = None
    meta: Sequence[tuple[str, str]] = ()
    topic: str | None = None
    rule: CronRule | None = None
    workflow: Workflow | None = None
    phase: str | None = None
    start: str | None = None
    end: str | None = None
    length: str | None = None
    by: str | None = None
    every: str | None = None
    hours: str | None = None
    except_hours: str | None = None
    timezone: str | None = None
    rows: Rows | None = None
    #: Whether the columns of a row become meta. Those of a request for a run always do.
    row_meta: bool = False


def make_plan(asked: Asked, now: float, named: Callable[[str], str], dialect: Dialect = Dialect.TASKBUS) -> Plan:
    """The batch that is asked for; ``now`` is the present moment, ``named`` what an option is called here,
    ``dialect`` that of its tasks.

    Raises:
        AskedError: naming the option that is wrong or missing.
    """
    return replace(_Reading(asked, now, named).plan(), dialect=dialect)


class _Reading:
    def __init__(self, asked: Asked, now: float, named: Callable[[str], str]) -> None:
        self._asked = asked
        self._now = now
        self._named = named
        flow = asked.workflow
        #: The rule whose instants are the moments, if no step is given.
        self._rule = asked.rule or (flow.crons[0] if flow is not None and len(flow.crons) == 1 else None)

    def plan(self) -> Plan:
        asked, rule, flow = self._asked, self._asked.rule, self._asked.workflow
        self._check_whose()
        kind = asked.type or (rule.type if rule else flow.id if flow else None)
        if not kind:
            name = self._named
            raise AskedError(f"which tasks? Give their {name('type')} and {name('task')}, or a {name('rule')}")
        zone = self._zone()
        meta = dict(rule.meta) if rule else {}
        for key, template in asked.meta:
            meta[key] = self._read("meta", lambda text: Template(text, META_TOKENS), template)
        task = rule.task if rule else Template("", ())
        if asked.task is not None:
            task = self._read("task", lambda text: Template(text, TASK_TOKENS), asked.task)
        found = self._moments(zone)
        if found is None and asked.rows is None:
            start, end, rows = map(self._named, ("from", "to", "rows"))
            raise AskedError(f"which tasks? Give {start} and {end}, {rows}, or both")
        topic = asked.topic or (rule.topic if rule else REQUESTS if flow else kind)
        return Plan(
            id=asked.id,
            type=kind,
            job=asked.job or (rule.job if rule else None),
            topic=self._read("topic" if asked.topic else "type", check_topic, topic),
            task=task,
            meta=meta,
            zone=zone,
            offset=self._rule.offset if self._rule else 0.0,
            moments=found,
            rows=asked.rows,
            runs=flow is not None,
            phase=asked.phase,
            row_meta=asked.row_meta,
        )

    def _check_whose(self) -> None:
        asked, name = self._asked, self._named
        if asked.workflow is None:
            if asked.phase is not None:
                raise AskedError(f"{name('phase')} goes with {name('workflow')}")
            return
        for option, given in (("rule", asked.rule), ("type", asked.type), ("job", asked.job)):
            if given is not None:
                raise AskedError(f"{name('workflow')} says what is made: {name(option)} has no place beside it")
        if not asked.workflow.requests or not asked.workflow.enabled:
            why = "is set aside" if not asked.workflow.enabled else "takes no requests"
            raise AskedError(f"{name('workflow')}: {asked.workflow.id} {why}, as its file says")
        if asked.phase is not None:
            self._read("phase", asked.workflow.part, asked.phase)

    def _zone(self) -> Zone:
        asked = self._asked
        if asked.timezone is not None:
            return self._read("timezone", find_zone, asked.timezone)
        return asked.rule.zone if asked.rule else asked.workflow.zone if asked.workflow else find_zone("UTC")

    def _moments(self, zone: Zone) -> Moments | None:
        asked, name = self._asked, self._named
        if asked.start is None:
            for option in ("end", "length", "by", "every", "hours", "except_hours"):
                if getattr(asked, option) is not None:
                    raise AskedError(
                        f"{name('to')}, {name('for')}, {name('by')}, {name('every')} and {name('hours')} go with "
                        f"{name('from')}"
                    )
            return None
        start = self._read("from", lambda text: parse_moment(text, zone, self._now), asked.start)
        if asked.end is not None and asked.length is not None:
            raise AskedError(f"{name('to')} and {name('for')} say the same: give one of them")
        end = start
        if asked.end is not None:
            end = self._read("to", lambda text: parse_moment(text, zone, self._now), asked.end)
        elif asked.length is not None:
            end = start + int(self._read("for", parse_duration, asked.length))
        hours = self._read("hours", parse_hours, asked.hours or "0-23")
        if asked.except_hours:
            hours -= self._read("except-hours", parse_hours, asked.except_hours)
        every = self._read("every", _steps, asked.every or "1")
        rule = self._rule
        if rule is not None and asked.by is None:
            if asked.every is not None:
                raise AskedError(f"{name('every')} goes with {name('by')}")
            return lambda: _instants(rule, start, end, zone, hours)
        step = self._read("by", _step, asked.by or Step.DAY)
        return lambda: moments(start, end, step, zone, hours, every)

    def _read(self, name: str, read: Callable[[str], Read], text: str) -> Read:
        try:
            return read(text)
        except (ValueError, OverflowError, BadNameError) as error:
            raise AskedError(f"{self._named(name)}: {error}") from None


def _instants(rule: CronRule, start: int, end: int, zone: Zone, hours: frozenset[int]) -> Iterable[int]:
    """The instants of the rule itself."""

    def forward() -> Iterator[int]:
        instant = rule.schedule.next(min(start, end) - 1)
        while instant is not None and instant <= max(start, end):
            if datetime.fromtimestamp(instant, zone.info).hour in hours:
                yield instant
            instant = rule.schedule.next(instant)

    return forward() if end >= start else reversed(list(forward()))


def _step(text: str) -> Step:
    try:
        return Step(text)
    except ValueError:
        raise ValueError(no_word(text, list(Step))) from None


def _steps(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_STEPS:
        raise ValueError(f"{text!r} is no number of steps: 1 to {_MOST_STEPS}")
    return int(text)
