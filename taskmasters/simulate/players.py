"""The taskmasters as a simulation plays them: their own rules and engines, with what is sent caught on its way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bus import dead_topic
from task.codec import decode, encode
from task.dead import DEAD
from task.outcome import Result
from task.task import Task
from taskmasters.cron.rules import CronRule
from taskmasters.cron.scheduler import Scheduler
from taskmasters.delay.engine import DelayEngine
from taskmasters.on_done.alone import OnDoneAlone
from taskmasters.on_done.rules import OnDoneRule
from taskmasters.retry.engine import RETRY, RetryEngine
from taskmasters.retry.records import RECORDS
from taskmasters.retry.rules import RetryRule, find_rule
from taskmasters.simulate.made import DELAY, DONE, FAILED, Ended, Kind, Made, Maker
from taskmasters.store import Arrival, Fate, Outgoing
from taskmasters.stored.alone import EngineAlone

__all__ = ["CronPlayer", "DelayPlayer", "OnDonePlayer", "Player", "RetryPlayer", "buried", "decoded"]

#: Messages an application receives at a time, and puts into one transaction.
_BATCH = 500
#: Seconds for which the applications remember what was sent, and retries that came to an end.
REMEMBERED, _KEEP = 86400.0, 7 * 86400.0
_HUGE = 1 << 40


class Player:
    """One application. Moments are seconds since the epoch; what a method returns is sent at that moment."""

    #: The topic whose tasks it takes; done tasks come to all.
    topic: str | None = None

    @property
    def wake(self) -> float | None:
        """The next moment it wants to act by itself; None if there is none."""
        return None

    def tick(self, now: float) -> list[Made]:
        """The moment has come."""
        return []

    def take(self, tasks: Sequence[Made], now: float) -> list[Made]:
        """These came to its topic."""
        return []

    def done(self, ended: Sequence[Ended], now: float) -> list[Made]:
        """These are done."""
        return []

    def notes(self, now: float) -> Iterator[str]:
        """What is to be said at the end, at that moment."""
        return iter(())

    def close(self) -> None:
        """Let go of its state."""


class CronPlayer(Player):
    """The cron taskmaster with the rules of ``file``, whose instants from ``start`` on are fired."""

    def __init__(self, file: str, rules: Sequence[CronRule], start: float) -> None:
        # What begins at a moment fires after it.
        self._scheduler = Scheduler(rules, {}, start - 1)
        self._makers = {rule.id: Maker("cron", file, rule.id) for rule in rules}

    @property
    def wake(self) -> float | None:
        return self._scheduler.wake

    def tick(self, now: float) -> list[Made]:
        found: list[Made] = []
        while firings := self._scheduler.due(now):
            for rule, instant in firings:
                task = rule.make(instant, now)
                found.append(Made(rule.topic, encode(task), task, self._makers[rule.id]))
        return found


class OnDonePlayer(Player):
    """The on-done taskmaster with the rules of ``file``."""

    def __init__(self, file: str, rules: Sequence[OnDoneRule]) -> None:
        self._alone = OnDoneAlone(rules)
        self._makers = {rule.id: Maker("on-done", file, rule.id) for rule in rules}
        self._itself = Maker("on-done", file)

    def done(self, ended: Sequence[Ended], now: float) -> list[Made]:
        found: list[Made] = []
        became = self._alone.done([(one.task, one.result) for one in ended], now)
        for (parent, _, cause), (children, problems) in zip(ended, became, strict=True):
            for topic, _, body, delay, rule in children:
                found.append(
                    Made(
                        topic,
                        body,
                        decoded(body),
                        self._makers[rule],
                        parent=parent.id,
                        cause=cause,
                        delay=delay,
                    )
                )
            if problems:
                found.append(buried(self._itself, DONE, parent, cause, "; ".join(problems)))
        return found

    def notes(self, now: float) -> Iterator[str]:
        for rule, key in self._alone.given_up(now):
            yield f"on-done {rule} gave up waiting for all done tasks of {key!r}"

    def close(self) -> None:
        self._alone.close()


class _StoredPlayer(Player):
    """One whose engine keeps a state."""

    def __init__(self, alone: EngineAlone, start: float) -> None:
        self._alone = alone
        self._cleaned = start

    @property
    def wake(self) -> float | None:
        return self._alone.wake

    def tick(self, now: float) -> list[Made]:
        found = [self._made(outgoing) for outgoing in self._alone.tick(now)]
        if now - self._cleaned >= REMEMBERED:
            self._alone.forget(now - REMEMBERED)
            self._cleaned = now
        return found

    def close(self) -> None:
        self._alone.close()

    def _apply(self, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        slices = (arrivals[start : start + _BATCH] for start in range(0, len(arrivals), _BATCH))
        return [fate for some in slices for fate in self._alone.apply(some, now)]

    def _made(self, outgoing: Outgoing) -> Made:
        raise NotImplementedError


class RetryPlayer(_StoredPlayer):
    """The retry taskmaster with the rules of ``file``."""

    def __init__(self, file: str, rules: Sequence[RetryRule], start: float) -> None:
        super().__init__(EngineAlone(RetryEngine(rules, failed_topic=FAILED, keep=_KEEP), RECORDS), start)
        self._rules = rules
        #: How a task must have ended for any rule to be for it.
        self._ends = frozenset[Result]().union(*(rule.match.results for rule in rules))
        self._makers = {rule.id: Maker("retry", file, rule.id) for rule in rules}
        self._itself = Maker("retry", file)
        #: By the id of a task that failed: the rule that is for it, and how it ended last.
        self._failed: dict[str, tuple[RetryRule, Ended]] = {}

    def done(self, ended: Sequence[Ended], now: float) -> list[Made]:
        concerned = [one for one in ended if self._concerned(one)]
        if not concerned:
            return []
        fates = self._apply([Arrival(one.task, one.task.id or "") for one in concerned], now)
        return [
            buried(self._itself, DONE, one.task, one.made, fate.reason)
            for one, fate in zip(concerned, fates, strict=True)
            if fate.code
        ]

    def _concerned(self, one: Ended) -> bool:
        """Whether the engine has anything to do with it: it failed under a rule, now or before."""
        id = one.task.id or ""
        if one.result not in self._ends:
            return id in self._failed
        rule = None if DEAD in one.task.meta else find_rule(self._rules, one.task, one.result)
        if rule is not None:
            self._failed[id] = (rule, one)
        return rule is not None or id in self._failed

    def _made(self, outgoing: Outgoing) -> Made:
        sent = decoded(outgoing.body)
        rule, (task, _, cause) = self._failed[sent.id or ""]
        make = partial(Made, outgoing.topic, outgoing.body, maker=self._makers[rule.id], cause=cause)
        if "code" in sent.extra and "dead" in sent.extra:
            return make(task, kind=Kind.NOTICE, note=str(sent.extra.get("reason", "")))
        if sent.result is not None:
            return make(sent, kind=Kind.NOTICE, note="given up")
        return make(sent, note=f"retry {sent.meta.get(RETRY, '')}")


class DelayPlayer(_StoredPlayer):
    """The delay taskmaster."""

    topic = DELAY

    def __init__(self, start: float) -> None:
        super().__init__(EngineAlone(DelayEngine(DELAY, dead_topic(DELAY))), start)
        self._itself = Maker("delay")
        self._taken: dict[str, Made] = {}

    def take(self, tasks: Sequence[Made], now: float) -> list[Made]:
        found: list[Made] = []
        fates = self._apply([Arrival(made.task, made.task.id or "") for made in tasks], now)
        for made, fate in zip(tasks, fates, strict=True):
            if fate.code:
                found.append(buried(self._itself, DELAY, made.task, made, fate.reason))
            else:
                self._taken[made.task.id or ""] = made
        return found

    def _made(self, outgoing: Outgoing) -> Made:
        task = decoded(outgoing.body)
        return Made(outgoing.topic, outgoing.body, task, self._itself, cause=self._taken.get(task.id or ""))


def buried(maker: Maker, topic: str, task: Task, cause: Made, reason: str) -> Made:
    """Stands for the dead letter of what came to ``topic``."""
    return Made(dead_topic(topic), encode(task), task, maker, Kind.NOTICE, reason, task.id, cause)


def decoded(body: bytes) -> Task:
    """The task that was encoded."""
    return decode(body, _HUGE)
