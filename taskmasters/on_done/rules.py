"""The rules of the on-done taskmaster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bus.url import nearest
from task.errors import SettingsError
from task.outcome import Result
from taskmasters.on_done.chain import check_cycles
from taskmasters.on_done.items import Items, parse_items
from taskmasters.on_done.patterns import ANY, Match, Texts
from taskmasters.rules import Place, RuleTable, load_rules
from taskmasters.templates import COMMON, ITEM, META, PARENT, TIME, Template
from taskmasters.zone import Zone, find_zone

__all__ = ["RESERVED", "Gather", "OnDoneRule", "check_topics", "load_on_done_rules", "read_match"]

#: Meta keys every child carries: the id of the done task it was made of, and of the first task of the chain.
PARENT_KEY, ROOT_KEY = "parent", "root"
#: Meta key of a child in a cycle: how many tasks of the cycle came before it, itself included.
DEPTH_KEY = "depth"
#: Meta key of a child of several done tasks: the ids of all of them.
PARENTS_KEY = "parents"
RESERVED = (PARENT_KEY, ROOT_KEY, DEPTH_KEY, PARENTS_KEY)
#: Meta keys of the parent that travel along unless the rule says which do.
_KEPT = ("workflow", "cron", "trace*")
_TOKENS = frozenset([*TIME, *COMMON, *META, *PARENT])
#: Done tasks that a rule may wait for, and for how long unless it says so, in seconds.
_MOST_PARTS = 20
_WITHIN = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """How done tasks that belong together are told: by a text made of each. ``within`` is seconds."""

    by: Template
    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDoneRule:
    """One rule. ``offset`` and ``delay`` are seconds; ``max_depth`` None is a rule that may not be in a cycle."""

    id: str
    #: One, or with ``gather`` those of which each must have come.
    matches: tuple[Match, ...]
    gather: Gather | None
    type: str
    task: Template
    job: str | None
    topic: str
    meta: Mapping[str, Template]
    keep_meta: Texts
    items: Items | None
    delay: float
    zone: Zone
    offset: float
    max_depth: int | None
    enabled: bool
    place: Place

    @property
    def uses_time(self) -> bool:
        """Whether a moment is needed to fill its templates."""
        templates = [self.task, *self.meta.values()]
        if self.gather is not None:
            templates.append(self.gather.by)
        if self.items is not None and self.items.template is not None:
            templates.append(self.items.template)
        return any(template.tokens & TIME.keys() for template in templates)


def load_on_done_rules(path: str) -> list[OnDoneRule]:
    """The rules of a file. Raises SettingsError naming every mistake, cycles included."""
    return load_rules(path, _read, check_cycles)


def check_topics(rules: Sequence[OnDoneRule], *ours: str) -> None:
    """Refuse rules that send to one of these topics, which are read or written by the taskmaster itself.

    Raises:
        SettingsError: naming the rule.
    """
    for rule in rules:
        if rule.enabled and rule.topic in ours:
            raise SettingsError(f"rule {rule.id} sends to the topic {rule.topic}, where no worker would find its tasks")


def _read(table: RuleTable) -> OnDoneRule:
    matches, said, gather = _matches(table)
    kind = table.required("type")
    job = table.text("job")
    items = table.value("for_each", parse_items, None) if "for_each" in table else None
    tokens = _TOKENS if items is None else _TOKENS | ITEM.keys()
    meta = table.table("meta")
    return OnDoneRule(
        id=table.text("id") or f"{said}>{kind}{f':{job}' if job else ''}",
        matches=matches,
        gather=gather,
        type=kind,
        task=table.template("task", tokens),
        job=job,
        topic=table.topic(kind),
        meta=_meta(meta, tokens),
        keep_meta=Texts(table.texts("keep_meta", empty=True) or (() if "keep_meta" in table else _KEPT)),
        items=items,
        delay=table.duration("delay", 0.0),
        zone=table.read("timezone", find_zone, find_zone("UTC")),
        offset=table.duration("offset", 0.0, negative=True),
        max_depth=_max_depth(table),
        enabled=table.flag("enabled", True),
        place=table.place,
    )


def _matches(table: RuleTable) -> tuple[tuple[Match, ...], str, Gather | None]:
    if "all" not in table:
        for key in ("by", "within"):
            if key in table:
                table.text(key)
                table.wrong(key, "means nothing without all = [ … ], the done tasks to wait for")
        match, said = read_match(table.table("match"))
        if "match" not in table:
            table.missing("match", 'which done tasks it is for, as in match = { type = "hello-world" }')
        return (match,), said, None
    if "match" in table:
        table.table("match")
        table.wrong("match", "stands beside all: give one of them")
    found = [read_match(each) for each in table.tables("all")]
    if not 2 <= len(found) <= _MOST_PARTS:
        table.wrong("all", f"must name 2 to {_MOST_PARTS} kinds of done tasks")
    if "by" not in table:
        table.missing("by", "what tells that done tasks belong together, as in by = '{meta:cron}'")
    gather = Gather(by=table.template("by", _TOKENS), within=table.duration("within", _WITHIN))
    if not gather.by.tokens and "by" in table:
        table.wrong("by", "is the same for all done tasks: write a placeholder, as in '{meta:cron}'")
    return tuple(match for match, _ in found), "+".join(said for _, said in found), gather


def read_match(table: RuleTable) -> tuple[Match, str]:
    """What to match, and how the rule is called if it has no id."""
    types, jobs, values = table.texts("type"), table.texts("job"), table.texts("value")
    wanted = table.table("meta")
    match = Match(
        type=Texts(types) if types else None,
        job=Texts(jobs) if jobs else None,
        value=Texts(values) if values else None,
        results=_results(table),
        meta={key: Texts(texts) for key in wanted if (texts := wanted.texts(key))},
    )
    wanted.finish()
    table.finish()
    return match, ",".join(types or (ANY,)) + (":" + ",".join(jobs) if jobs else "")


def _results(table: RuleTable) -> frozenset[Result]:
    given = table.texts("result")
    if given is None:
        return frozenset((Result.COMPLETE,))
    if ANY in given:
        return frozenset(Result)
    for text in given:
        if text not in set(Result):
            table.wrong("result", f"{text!r} is not a result{nearest(text, [*map(str, Result), ANY])}")
            return frozenset()
    return frozenset(map(Result, given))


def _meta(table: RuleTable, tokens: frozenset[str]) -> dict[str, Template]:
    for key in RESERVED:
        if key in table:
            table.wrong(key, "is set by the taskmaster: choose another key")
    return table.templates(tokens)


def _max_depth(table: RuleTable) -> int | None:
    allowed = table.flag("allow_cycle", False)
    depth = table.number("max_depth", 1)
    if allowed and depth is None:
        table.missing("max_depth", "how many times the cycle may go round, because it has allow_cycle")
    if depth is not None and not allowed:
        table.wrong("max_depth", "means nothing without allow_cycle = true")
    return depth if allowed else None
