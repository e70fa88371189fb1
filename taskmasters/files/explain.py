"""What file rules do, in words, and what they would send now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from bus.units import format_duration
from taskmasters.files.engine import FileEngine
from taskmasters.files.pattern import Glob
from taskmasters.files.rules import FileRule, Grouping, Needs
from taskmasters.files.scanner import look
from taskmasters.files.source import Source

__all__ = ["explain", "preview"]


def explain(rules: Sequence[FileRule], now: float) -> Iterator[str]:
    """Lines that say what each rule does."""
    for rule in rules:
        yield f"{rule.id}{'' if rule.enabled else ' (disabled)'}"
        yield f"  for each file that arrives as {rule.pattern.text}"
        if rule.pattern.dated:
            folders = list(rule.pattern.globs(now))
            yield f"  looks now into {len(folders)} of them, from {_shown(folders[0])} to {_shown(folders[-1])}"
        elif rule.lookback is not None:
            yield f"  not changed longer ago than {format_duration(rule.lookback)}"
        if rule.settle:
            yield f"  once it was unchanged for {format_duration(rule.settle)}"
        if rule.temporary is not None:
            yield f"  leaves out: {' '.join(rule.temporary.given)}"
        if rule.grouping is not None:
            yield f"  {_grouping(rule.grouping)}"
        job = f":{rule.job}" if rule.job else ""
        yield f"  makes: {rule.type}{job} with the value {rule.task.text!r}, on topic {rule.topic}"
        for key, template in rule.meta.items():
            yield f"    meta {key} = {template.text!r}"
        again = "when it is changed" if rule.again == "changed" else "never"
        yield f"  a file that was sent is sent again: {again}"
        if not rule.existing:
            yield "  files that are there before the rule is are not sent"


def preview(rules: FileEngine, sources: Sequence[tuple[FileRule, Source]], now: float) -> Iterator[bytes | str]:
    """The tasks for what is there now, as if it had settled; as texts, what keeps files and groups from being sent."""
    for rule, source in sources:
        # Marked groups need two looks, and files that settle two as well.
        for moment in (now, now + rule.settle):
            found, trouble = look(rule, source, now)
            rules.observe(rule.id, found, moment, moment, complete=not trouble)
        if trouble:
            yield trouble
    last = max((rule.settle for rule, _ in sources), default=0.0) + now
    while plan := rules.plan(last):
        for message in plan.messages:
            yield message.body
        for _, _, _, why in plan.problems:
            yield why
        rules.commit(plan)
    for watched in rules.watched.values():
        for group, files in islice(watched.waiting.items(), 1000):
            if group not in watched.stuck:
                yield f"rule {watched.rule.id}: the group {group} waits with {len(files)} files"


def _shown(glob: Glob) -> str:
    root, parts = glob.root, glob.parts
    return f"{root.rstrip('/')}/{'/'.join(parts)}"


def _grouping(grouping: Grouping) -> str:
    said = []
    if grouping.count is not None:
        said.append(f"there are {grouping.count} of them")
    if grouping.quiet is not None:
        said.append(f"none came for {format_duration(grouping.quiet)}")
    if grouping.marker is not None:
        said.append(f"{grouping.marker} is beside them")
    if grouping.schedule is not None:
        said.append(f"it is time ({grouping.schedule.explain()})")
    joined = (" or " if grouping.needs is Needs.ANY else " and ").join(said)
    return f"together with all that have the same {grouping.key.text}, when {joined}"
