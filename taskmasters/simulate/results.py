"""What tasks come to in a simulation: a file of rules that stands for the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from bus.url import nearest
from task.dead import DEAD
from task.outcome import Result
from task.task import Task, derive_id
from taskmasters.on_done.patterns import Match, Texts
from taskmasters.on_done.rules import read_match
from taskmasters.rules import Place, RuleTable, load_rules
from taskmasters.simulate.errors import SimulationError
from taskmasters.templates import COMMON, META, PARENT, TIME, MissingValueError, Scope, Template

__all__ = ["NEVER", "REJECT", "RESULTS", "Comes", "ResultRule", "Results", "load_results"]

#: A task that is wrong in itself: its done task says ``error``, and its worker made a dead letter of it.
REJECT = "reject"
#: Nobody does it: no done task ever comes.
NEVER = "never"
#: What a task can come to.
RESULTS = (*map(str, Result), REJECT, NEVER)
_TOKENS = frozenset([*TIME, *COMMON, *META, *PARENT])
#: Of a hash, so many hexadecimal digits fill the fraction of a float exactly.
_DIGITS = 13


class Comes(NamedTuple):
    """What one attempt comes to, after ``duration`` seconds. ``rule`` None is a task that no rule is for."""

    result: str
    duration: float = 0.0
    rule: ResultRule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRule:
    """One rule. ``duration`` is seconds; ``attempts`` None is every attempt; ``share`` is a part of all tasks."""

    id: str
    topic: Texts | None
    match: Match
    result: str
    duration: float
    msg: Template
    meta: Mapping[str, Template]
    share: float
    attempts: int | None
    enabled: bool
    place: Place

    def fits(self, topic: str, task: Task, attempt: int) -> bool:
        """Whether it decides about this attempt, counted from 1."""
        return (
            (self.attempts is None or attempt <= self.attempts)
            and (self.topic is None or self.topic.match(topic))
            and (self.match.type is None or self.match.type.match(task.type))
            and self.match.rest(task, Result.COMPLETE)
            and (self.share >= 1 or self._chance(task) < self.share)
        )

    def _chance(self, task: Task) -> float:
        # The same for all attempts at a task, and for all simulations.
        chance: float = int(derive_id("share", self.id, task.id or "")[:_DIGITS], 16) / 16**_DIGITS
        return chance


class Results:
    """The rules of ``file``, of which the first that fits decides. What none is for completes at once."""

    def __init__(self, rules: Sequence[ResultRule] = (), file: str = "") -> None:
        self._rules = [rule for rule in rules if rule.enabled]
        self._file = file
        self._counting = any(rule.attempts is not None for rule in self._rules)
        self._attempts: Counter[str] = Counter()

    def of(self, topic: str, task: Task) -> Comes:
        """What the attempt at ``task`` that begins now comes to. Each call is another attempt."""
        attempt = 1
        if self._counting:
            self._attempts[task.id or ""] += 1
            attempt = self._attempts[task.id or ""]
        for rule in self._rules:
            if rule.fits(topic, task, attempt):
                return Comes(rule.result, rule.duration, rule)
        return Comes(str(Result.COMPLETE))

    def said(self, comes: Comes, task: Task, now: float) -> tuple[Result, str, dict[str, str]]:
        """Result, message and meta of the done task of an attempt that ends now.

        Raises:
            SimulationError: for a placeholder that has no value.
        """
        result = Result.ERROR if comes.result == REJECT else Result(comes.result)
        if comes.rule is None:
            return result, "", {}
        scope = Scope(task.id or "", datetime.fromtimestamp(now, UTC), task.meta, task)
        try:
            meta = {key: template.render(scope) for key, template in comes.rule.meta.items()}
            msg = comes.rule.msg.render(scope)
        except MissingValueError as error:
            raise SimulationError(
                f"{self._file}: rule {comes.rule.id}: {error}, for the task {task.id} of type {task.type}"
            ) from None
        return result, msg, meta | ({DEAD: "rejected"} if comes.result == REJECT else {})


def load_results(path: str) -> list[ResultRule]:
    """The rules of a file. Raises SettingsError naming every mistake."""
    return load_rules(path, _read)


def _read(table: RuleTable) -> ResultRule:
    given = table.table("match")
    topics = given.texts("topic")
    match, said = read_match(given)
    if "result" in given:
        given.wrong("result", "a task has none before it is done: result stands beside match and says what it comes to")
    meta = table.table("meta")
    result = table.read("result", _read_result, str(Result.COMPLETE))
    return ResultRule(
        # Not the number alone: a rule added at the end must not change the shares of those before it.
        id=table.text("id") or f"{said} {table.place[-1]}",
        topic=Texts(topics) if topics else None,
        match=match,
        result=result,
        duration=table.duration("duration", 0.0),
        msg=table.template("msg", _TOKENS),
        meta=meta.templates(_TOKENS),
        share=table.value("share", _read_share, 1.0),
        attempts=table.number("attempts", 1),
        enabled=table.flag("enabled", True),
        place=table.place,
    )


def _read_result(text: str) -> str:
    if text not in RESULTS:
        raise ValueError(f"{text!r} is nothing a task comes to{nearest(text, list(RESULTS))}")
    return text


def _read_share(given: object) -> float:
    part: float | None = None
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        part = float(given)
    elif isinstance(given, str) and given.endswith("%"):
        try:
            part = float(given[:-1]) / 100
        except ValueError:
            part = None
    if part is None or not 0 <= part <= 1:
        raise ValueError(f'must be a part of all tasks, as 0.1 or "10%", not {given!r}')
    return part
