"""What on-done rules do, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bus.units import format_duration
from taskmasters.on_done.chain import describe_chains
from taskmasters.on_done.rules import OnDoneRule

__all__ = ["explain"]


def explain(rules: Sequence[OnDoneRule]) -> Iterator[str]:
    """Lines that say what each rule does, and which follows which."""
    for rule in rules:
        yield f"{rule.id}{'' if rule.enabled else ' (disabled)'}"
        if rule.gather is None:
            yield f"  for each done task of {rule.matches[0]}"
        else:
            yield f"  when all of these are done that have the same {rule.gather.by.text!r}:"
            yield from (f"    {match}" for match in rule.matches)
            yield f"  forgetting what is not complete within {format_duration(rule.gather.within)}"
        each = f", for each of {rule.items.text}" if rule.items else ""
        job = f":{rule.job}" if rule.job else ""
        yield f"  makes: {rule.type}{job} with the value {rule.task.text!r}, on topic {rule.topic}{each}"
        for key, template in rule.meta.items():
            yield f"    meta {key} = {template.text!r}"
        if rule.keep_meta.given:
            yield f"    meta kept from the done task: {', '.join(rule.keep_meta.given)}"
        if rule.delay:
            yield f"  which may be done {format_duration(rule.delay)} later"
        if rule.max_depth is not None:
            yield f"  at most {rule.max_depth} times in one cycle"
    yield ""
    yield "What follows what:"
    for line in describe_chains(rules):
        yield f"  {line}"
