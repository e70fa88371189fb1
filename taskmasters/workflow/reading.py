"""One job of a workflow file: from a table to a node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bus.url import nearest
from task.outcome import Result
from task.retry import KINDS, Backoff
from taskmasters.on_done.patterns import ANY, Texts
from taskmasters.rules import RuleTable
from taskmasters.templates import COMMON, ITEM, JOB, META, REQUEST, ROW, RUN, TIME
from taskmasters.workflow.definition import RESERVED, Condition, Node, On, Policy, Retry
from taskmasters.workflow.items import read_source
from taskmasters.zone import Zone

__all__ = ["REQUESTED", "Defaults", "read_node", "read_undo"]

#: Name of the task that started the run, in conditions.
REQUESTED = "request"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_RUN_TOKENS = frozenset([*TIME, *COMMON, *META, *REQUEST, *RUN, JOB])
_TASK_TOKENS = frozenset([*_RUN_TOKENS, *ITEM, *ROW])
#: Largest number of retries; a worker's own retries are beside these.
_MOST_RETRIES = 1000


class Defaults:
    """What a step says for its jobs."""

    def __init__(self, step: str | None = None, table: RuleTable | None = None) -> None:
        self.step = step
        self.depends_on: tuple[str, ...] = ()
        self.on_failure = Policy.STOP if table is None else _policy(table, Policy.STOP)
        self.retry = Retry() if table is None else _retry(table, Retry())
        self.deadline = None if table is None else _deadline(table, None)


def read_node(table: RuleTable, defaults: Defaults, folder: Path, zone: Zone) -> Node:
    """The node of one ``[[job]]``. Its mistakes are noted in the table."""
    kind = table.required("type")
    job = table.text("job")
    each = table.text("each")
    source = table.value("for_each", lambda given: read_source(given, _RUN_TOKENS, folder, zone), None)
    if each is not None:
        for key in ("for_each", "depends_on", "when", "on"):
            if key in table:
                table.wrong(key, "means nothing beside each, which is what the job depends on")
    elif "depends_on" not in table and not defaults.depends_on:
        for key in ("when", "on"):
            if key in table:
                table.wrong(key, "means nothing without depends_on")
    tokens = _TASK_TOKENS if source is not None or each is not None else _RUN_TOKENS
    meta = table.table("meta")
    return Node(
        name=_name(table, job or kind),
        step=defaults.step,
        type=kind,
        job=job,
        topic=table.topic(kind),
        task=table.template("task", tokens),
        meta=_meta(meta, tokens),
        offset=table.duration("offset", 0.0, negative=True),
        depends_on=() if each is not None else _unique((*defaults.depends_on, *(table.texts("depends_on") or ()))),
        any=table.word("when", ("all", "any"), "all") == "any",
        on=On(table.word("on", list(On), On.COMPLETED)),
        conditions=_conditions(table.table("if")),
        source=source,
        each=each,
        retry=_retry(table, defaults.retry),
        deadline=_deadline(table, defaults.deadline),
        on_failure=_policy(table, defaults.on_failure),
        place=table.place,
    )


def read_undo(table: RuleTable, node: Node, previous: str | None) -> Node:
    """The compensation of ``node``, done after ``previous`` has ended."""
    kind = table.required("type")
    meta = table.table("meta")
    return Node(
        name=f"undo {node.name}",
        step=None,
        type=kind,
        job=table.text("job"),
        topic=table.topic(kind),
        task=table.template("task", _TASK_TOKENS),
        meta=_meta(meta, _TASK_TOKENS),
        offset=node.offset,
        depends_on=() if previous is None else (previous,),
        any=False,
        on=On.ENDED,
        conditions=(),
        source=None,
        each=None,
        retry=_retry(table, Retry()),
        deadline=_deadline(table, None),
        on_failure=Policy.CONTINUE,
        undoes=node.name,
        place=table.place,
    )


def _name(table: RuleTable, fallback: str) -> str:
    name = table.text("name")
    if name is None:
        if fallback and not _NAME.fullmatch(fallback):
            table.missing("name", f"{fallback!r} cannot be one, because of the characters in it")
        name = fallback
    elif not _NAME.fullmatch(name):
        table.wrong("name", f"{name!r} must be letters, digits, - and _")
    if name == REQUESTED:
        table.wrong("name", f"{REQUESTED!r} is the name of the task that started the run")
    return name


def _meta(table: RuleTable, tokens: frozenset[str]) -> dict:  # type: ignore[type-arg]
    for key in RESERVED:
        if key in table:
            table.wrong(key, "is set by the taskmaster: choose another key")
    return table.templates(tokens)


def _policy(table: RuleTable, default: Policy) -> Policy:
    return Policy(table.word("on_failure", list(Policy), default))


def _deadline(table: RuleTable, default: float | None) -> float | None:
    if "deadline" not in table:
        return default
    seconds = table.duration("deadline", 1.0)
    if seconds == 0:
        table.wrong("deadline", "must be longer than 0s")
    return seconds


def _retry(table: RuleTable, default: Retry) -> Retry:
    if "retry" not in table:
        return default
    if not table.is_table("retry"):
        return Retry(_count(table, "retry"))
    inner = table.table("retry")
    if "count" not in inner:
        inner.missing("count", "how often the task is tried again")
    delay = inner.duration("delay", 1.0)
    longest = inner.duration("max_delay", max(900.0, delay))
    if longest < delay:
        inner.wrong("max_delay", "must not be shorter than delay")
    retry = Retry(
        _count(inner, "count"),
        Backoff(
            inner.word("backoff", KINDS, "exponential"),
            delay,
            longest,
            jitter=False,
        ),
        inner.flag("jitter", True),
    )
    inner.finish()
    return retry


def _count(table: RuleTable, key: str) -> int:
    count = table.number(key, 0)
    if count is not None and count > _MOST_RETRIES:
        table.wrong(key, f"must be at most {_MOST_RETRIES}")
    return count or 0


def _conditions(table: RuleTable) -> tuple[Condition, ...]:
    found = []
    for job in table:
        inner = table.table(job)
        meta = inner.table("meta")
        texts = {key: inner.texts(key) for key in ("value", "msg")}
        found.append(
            Condition(
                job,
                Texts(texts["value"]) if texts["value"] else None,
                Texts(texts["msg"]) if texts["msg"] else None,
                _results(inner),
                {key: Texts(wanted) for key in meta if (wanted := meta.texts(key))},
            )
        )
        inner.finish()
    return tuple(found)


def _results(table: RuleTable) -> frozenset[str]:
    given = table.texts("result")
    if given is None or ANY in given:
        return frozenset()
    for text in given:
        if text not in set(Result):
            table.wrong("result", f"{text!r} is not a result{nearest(text, [*map(str, Result), ANY])}")
    return frozenset(given)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
