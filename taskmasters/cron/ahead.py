"""What comes due soon, made into messages before it does: at its instant nothing is left but to publish it."""

from __future__ import annotations

from collections.abc import Iterable

from bus import Message
from task.codec import encode
from taskmasters.cron.rules import CronRule
from taskmasters.cron.scheduler import Firing, Scheduler

__all__ = ["Ahead", "message"]

#: Seconds before their instant at which tasks are made: time to make those of 100,000 rules that fire together.
_HORIZON = 10.0
#: Tasks made at a time: less than a millisecond's work, for nothing else can be done meanwhile.
_PORTION = 20


class Ahead:
    """The messages for the next instants of ``scheduler``. A task made so was *created* at the moment it is due."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        #: By rule id: a rule has one next instant.
        self._made: dict[str, tuple[Firing, Message]] = {}

    @property
    def wake(self) -> float | None:
        """When there is something to be made; None if there never will be."""
        unseen = self._scheduler.unseen
        return None if unseen is None else unseen - _HORIZON

    def make(self, now: float) -> bool:
        """Make a few. False if there was nothing to be made yet."""
        firings = self._scheduler.ahead(now + _HORIZON, _PORTION)
        for firing in firings:
            rule, instant = firing
            self._made[rule.id] = firing, message(firing, rule.due(instant))
        return bool(firings)

    def use(self, rules: Iterable[CronRule]) -> None:
        """Keep what was made for these only."""
        ids = {rule.id for rule in rules}
        self._made = {id: made for id, made in self._made.items() if id in ids}

    def take(self, firing: Firing, now: float) -> Message:
        """The message of an instant that has come due: the one made before, or one that is made now."""
        rule, instant = firing
        found = self._made.pop(rule.id, None)
        if found is not None and found[0].instant == instant and found[0].rule is rule:
            return found[1]
        return message(firing, now)


def message(firing: Firing, created: float) -> Message:
    """The task of an instant, as it is published."""
    rule, instant = firing
    task = rule.make(instant, created)
    return Message(rule.topic, encode(task), id=task.id)
