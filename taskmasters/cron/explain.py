"""What cron rules do, in words and by example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice

from bus.units import format_duration
from task.codec import encode
from taskmasters.cron.rules import CronRule, Missed, instant_text

__all__ = ["explain", "preview"]


def explain(rules: Sequence[CronRule], now: float) -> Iterator[str]:
    """Lines that say what each rule does and when it fires next."""
    for rule in rules:
        yield f"{rule.id}{'' if rule.enabled else ' (disabled)'}"
        yield f"  when: {rule.schedule.explain()}"
        if rule.jitter:
            yield f"  delayed by up to {format_duration(rule.jitter)}, the same for an instant in every replica"
        job = f":{rule.job}" if rule.job else ""
        yield f"  makes: {rule.type}{job} with the value {rule.task.text!r}, on topic {rule.topic}"
        for key, template in rule.meta.items():
            yield f"    meta {key} = {template.text!r}"
        if rule.offset:
            direction = "before" if rule.offset < 0 else "after"
            yield f"  its times are those {format_duration(abs(rule.offset))} {direction} the instant"
        yield f"  missed while down: {_missed(rule)}"
        for instant, _ in islice(_firings(rule, now), 1):
            yield f"  next: {instant_text(instant)} with the value {rule.make(instant, instant).value!r}"


def preview(rules: Sequence[CronRule], now: float, count: int) -> Iterator[bytes]:
    """The tasks of the next ``count`` firings of each enabled rule, in order of time, as JSON."""

    def firings(rule: CronRule) -> Iterator[tuple[float, str, int, CronRule]]:
        for instant, due in islice(_firings(rule, now), count):
            yield due, rule.id, instant, rule

    for due, _, instant, rule in merge(*(firings(rule) for rule in rules if rule.enabled)):
        yield encode(rule.make(instant, due))


def _firings(rule: CronRule, now: float) -> Iterator[tuple[int, float]]:
    """Instants that come due after ``now``, with when they do."""
    instant = rule.schedule.next(int(now - rule.jitter))
    while instant is not None:
        due = rule.due(instant)
        if due > now:
            yield instant, due
        instant = rule.schedule.next(instant)


def _missed(rule: CronRule) -> str:
    if rule.missed is Missed.SKIP:
        return "not made up for"
    which = "the latest" if rule.missed is Missed.LAST else "each"
    return f"{which} is made up for, if no older than {format_duration(rule.window)}"
