"""What retry rules do, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bus.units import format_duration
from task.outcome import Result
from taskmasters.retry.rules import RetryRule

__all__ = ["explain"]

#: Delays that are told.
_TOLD = 10


def explain(rules: Sequence[RetryRule]) -> Iterator[str]:
    """Lines that say what each rule does."""
    for rule in rules:
        yield f"{rule.id}{'' if rule.enabled else ' (disabled)'}"
        yield f"  for {rule.match}"
        if rule.unless is not None:
            what, _, ended = str(rule.unless).partition(" that ended")
            yield f"  but not for {what}{f' that ended{ended}' if len(rule.unless.results) < len(Result) else ''}"
        within = "" if rule.within is None else f", within {format_duration(rule.within)} of the first failure"
        times = "once" if rule.retries == 1 else f"{rule.retries} times"
        yield f"  retries: {f'at most {times}{within}' if rule.retries else 'none'}"
        if rule.retries:
            told = [format_duration(rule.delays.backoff.delay(number)) for number in _numbers(rule)]
            more = " …" if rule.retries > _TOLD else ""
            yield f"  delays: {', '.join(told)}{more} ({rule.delays})"
        yield f"  sends to: {rule.topic or 'the topic of its type'}"
        yield f"  given up: a dead letter on {rule.dead_topic or 'that topic + .dead'}"


def _numbers(rule: RetryRule) -> range:
    return range(1, min(rule.retries, _TOLD) + 1)
