"""The rules of the cron taskmaster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

from task.task import Dialect, Task, derive_id
from taskmasters.cron.schedule import Schedule, parse_schedule
from taskmasters.rules import Place, RuleTable, load_rules
from taskmasters.templates import COMMON, META, TIME, Scope, Template
from taskmasters.zone import Zone, find_zone

__all__ = ["CronRule", "Missed", "instant_text", "load_cron_rules", "read_cron_rule"]

#: Meta key that holds the nominal instant, RFC 3339.
CRON = "cron"
_DAY = 86400.0
_DIALECTS = tuple(each.value for each in Dialect)
_META_TOKENS = frozenset([*TIME, *COMMON])
_TASK_TOKENS = frozenset([*_META_TOKENS, *META])


class Missed(StrEnum):
    """What becomes of instants that passed while no taskmaster was running."""

    SKIP = "skip"  #: nothing
    LAST = "last"  #: the latest of them is made up for
    ALL = "all"  #: each of them is made up for


_POLICIES = tuple(Missed)


# Many rules fire at one instant.
@lru_cache(maxsize=256)
def instant_text(instant: int) -> str:
    """A nominal instant as RFC 3339."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class CronRule:
    """One rule. ``offset``, ``jitter`` and ``window`` are seconds."""

    id: str
    schedule: Schedule
    zone: Zone
    offset: float
    jitter: float
    type: str
    task: Template
    job: str | None
    topic: str
    meta: Mapping[str, Template]
    missed: Missed
    window: float
    enabled: bool
    place: Place
    dialect: Dialect = Dialect.TASKBUS

    def due(self, instant: int) -> float:
        """When the task of a nominal instant is made: then, or up to ``jitter`` later, the same in every replica."""
        if not self.jitter:
            return instant
        share = int(derive_id("jitter", self.id, str(instant))[:8], 16) / 2**32
        return instant + self.jitter * share

    def make(self, instant: int, created: float) -> Task:
        """The task of a nominal instant: always the same one, but for ``created``."""
        text = instant_text(instant)
        scope = Scope(derive_id("cron", self.id, text), datetime.fromtimestamp(instant + self.offset, self.zone.info))
        meta = {key: template.render(scope) for key, template in self.meta.items()}
        meta[CRON] = text
        scope.meta = meta
        return Task(
            self.type,
            self.task.render(scope),
            job=self.job,
            created=datetime.fromtimestamp(created, UTC),
            id=scope.id,
            meta=meta,
            dialect=self.dialect,
        )


def load_cron_rules(path: str) -> list[CronRule]:
    """The rules of a file. Raises SettingsError naming every mistake."""
    return load_rules(path, read_cron_rule)


def read_cron_rule(table: RuleTable) -> CronRule:
    """One rule. Mistakes are told to the table."""
    kind = table.required("type")
    job = table.text("job")
    zone = table.read("timezone", find_zone, find_zone("UTC"))
    meta = table.table("meta")
    rule = CronRule(
        id=table.text("id") or (f"{kind}:{job}" if job else kind),
        schedule=_schedule(table, zone),
        zone=zone,
        offset=table.duration("offset", 0.0, negative=True),
        jitter=table.duration("jitter", 0.0),
        type=kind,
        task=table.template("task", _TASK_TOKENS),
        job=job,
        topic=table.topic(kind),
        meta=meta.templates(_META_TOKENS),
        missed=Missed(table.word("missed", _POLICIES, Missed.LAST)),
        window=table.duration("window", _DAY),
        enabled=table.flag("enabled", True),
        dialect=Dialect(table.word("dialect", _DIALECTS, Dialect.TASKBUS.value)),
        place=table.place,
    )
    if CRON in meta:
        meta.wrong(CRON, "holds the instant and is set by the taskmaster: choose another key")
    for key in sorted(rule.task.meta_keys - {*rule.meta, CRON}):
        table.wrong("task", f"{{meta:{key}}}: the rule's meta has no {key!r}")
    return rule


def _schedule(table: RuleTable, zone: Zone) -> Schedule:
    fallback = parse_schedule("@yearly", zone)
    if not table.required("cron"):
        return fallback
    return table.read("cron", lambda text: parse_schedule(text, zone), fallback)
