"""The rules of the retry taskmaster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bus import BadNameError, check_topic, dead_topic
from bus.units import format_duration
from task.errors import SettingsError
from task.outcome import Result
from task.retry import KINDS, Backoff
from task.task import Task, derive_id
from taskmasters.on_done.patterns import ANY, Match, Texts
from taskmasters.on_done.rules import read_match
from taskmasters.rules import Place, RuleTable, load_rules

__all__ = ["Delays", "RetryRule", "check_topics", "find_rule", "load_retry_rules"]

#: Results that may be retried. A complete task is done, and an alert is never retried.
_RETRIABLE = frozenset((Result.ERROR, Result.WARN))
_ERROR = frozenset((Result.ERROR,))
#: Whose retries are not ours, unless a rule says otherwise: the workflow taskmaster has its own.
_WORKFLOW = Match(results=frozenset(Result), meta={"workflow": Texts((ANY,))})
#: The jitter of each kind of delay, unless told otherwise.
_JITTER = {"exponential": 0.5}
#: Of a hash, so many hexadecimal digits fill the fraction of a float exactly.
_DIGITS = 13


@dataclass(frozen=True, slots=True)
class Delays:
    """The delay before each retry, in seconds. ``jitter`` (0 to 1) is the part of it that chance may take off.

    Chance is derived from the task's id and the number of the retry: the same task is always delayed alike.
    """

    backoff: Backoff
    jitter: float

    def before(self, number: int, id: str) -> float:
        """Seconds before retry ``number``, counted from 1, of the task with this id."""
        chance: float = int(derive_id("jitter", id, str(number))[:_DIGITS], 16) / 16**_DIGITS
        return self.backoff.delay(number) * (1 - self.jitter * chance)

    def __str__(self) -> str:
        backoff = self.backoff
        first, longest = format_duration(backoff.first), format_duration(backoff.max_delay)
        said = f"always {first}" if backoff.kind == "fixed" else f"{backoff.kind}, from {first} to {longest}"
        return said + (f", less up to {self.jitter:.0%} by chance" if self.jitter else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """One rule: at most ``retries`` retries of a task, none later than ``within`` seconds after its first failure.

    ``topic`` None is the topic of the task's type.
    """

    id: str
    match: Match
    unless: Match | None
    retries: int
    within: float | None
    delays: Delays
    topic: str | None
    dead_topic: str | None
    enabled: bool
    place: Place

    def fits(self, task: Task, result: Result) -> bool:
        """Whether it is for this done task."""
        return _fits(self.match, task, result) and not (self.unless is not None and _fits(self.unless, task, result))

    def target(self, task: Task) -> str:
        """The topic to send the task to."""
        return self.topic or task.type

    def dead_target(self, task: Task) -> str:
        """The topic for its dead letter."""
        return self.dead_topic or dead_topic(self.target(task))


def find_rule(rules: Sequence[RetryRule], task: Task, result: Result) -> RetryRule | None:
    """The first enabled rule that is for this done task."""
    return next((rule for rule in rules if rule.enabled and rule.fits(task, result)), None)


def load_retry_rules(path: str) -> list[RetryRule]:
    """The rules of a file. Raises SettingsError naming every mistake."""
    return load_rules(path, _read)


def check_topics(rules: Sequence[RetryRule], done: str, dead: str, failed: str | None) -> None:
    """Refuse what would be received again without end, or be found by no worker.

    Raises:
        SettingsError: naming the rule or option.
    """
    for option, topic in (("--dead-topic", dead), ("--failed-topic", failed)):
        if topic == done:
            raise SettingsError(f"{option} {topic}: the done tasks are received from there too; name another")
    for rule in rules:
        if rule.enabled and rule.topic in (done, dead, failed):
            raise SettingsError(f"rule {rule.id} sends to the topic {rule.topic}, where no worker would find its tasks")
        if rule.enabled and rule.dead_topic in (done, failed):
            raise SettingsError(f"rule {rule.id} sends dead letters to {rule.dead_topic}, where nobody looks for them")


def _read(table: RuleTable) -> RetryRule:
    given = table.table("match")
    match, said = read_match(given)
    if "match" not in table:
        table.missing("match", 'which done tasks it is for, as in match = { type = "load" }')
    if "result" not in given:
        match = replace(match, results=_ERROR)
    elif match.results - _RETRIABLE:
        given.wrong("result", "only error and warn are retried: what is complete is done, and an alert is for a person")
    retries = table.number("retries", 0)
    if "retries" not in table:
        table.missing("retries", "how many times a task is tried again")
    return RetryRule(
        id=table.text("id") or said,
        match=match,
        unless=_unless(table),
        retries=retries or 0,
        within=table.duration("within", 0.0) or None,
        delays=_delays(table),
        topic=_topic(table, "topic"),
        dead_topic=_topic(table, "dead_topic"),
        enabled=table.flag("enabled", True),
        place=table.place,
    )


def _unless(table: RuleTable) -> Match | None:
    given = table.table("unless")
    if "unless" not in table:
        return _WORKFLOW
    empty = not list(given)
    match, _ = read_match(given)
    if empty:
        return None
    return match if "result" in given else replace(match, results=frozenset(Result))


def _delays(table: RuleTable) -> Delays:
    kind = table.word("backoff", KINDS, "exponential")
    first = table.duration("delay", 30.0)
    longest = table.duration("max_delay", 3600.0)
    if "max_delay" not in table:
        longest = max(longest, first)
    elif longest < first:
        table.wrong("max_delay", "is shorter than the first delay")
    jitter = table.value("jitter", _read_jitter, _JITTER.get(kind, 0.0))
    return Delays(Backoff(kind, first, longest, jitter=False), jitter)


def _read_jitter(given: object) -> float:
    part: float | None = None
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        part = float(given)
    elif isinstance(given, str) and given.endswith("%") and given[:-1].strip().isdecimal():
        part = int(given[:-1]) / 100
    if part is None or not 0 <= part <= 1:
        raise ValueError(f'must be the part of a delay that chance may take off, as 0.2 or "20%", not {given!r}')
    return part


def _topic(table: RuleTable, key: str) -> str | None:
    return table.read(key, _checked_topic, None)


def _checked_topic(text: str) -> str | None:
    try:
        return check_topic(text)
    except BadNameError as error:
        raise ValueError(str(error)) from None


def _fits(match: Match, task: Task, result: Result) -> bool:
    return (match.type is None or match.type.match(task.type)) and match.rest(task, result)
