"""Which rule can follow which: the chains a rule file makes, and the cycles it must not make unawares.

A rule follows another if a task the other makes can, once done, match it: by type and job. Result, value and meta are
not looked at, because a worker decides about them at run time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from taskmasters.rules import Problems

if TYPE_CHECKING:
    from taskmasters.on_done.rules import OnDoneRule

__all__ = ["check_cycles", "describe_chains", "followers", "on_cycles"]


def followers(rules: Sequence[OnDoneRule]) -> dict[str, list[str]]:
    """For each enabled rule, by id, the rules that can match what it makes."""
    enabled = [rule for rule in rules if rule.enabled]
    of_type: defaultdict[str, list[OnDoneRule]] = defaultdict(list)
    of_any: list[OnDoneRule] = []
    for rule in enabled:
        types = {kind for match in rule.matches for kind in (match.type.given if match.type else ())}
        if all(match.type is not None and match.type.literal for match in rule.matches):
            for kind in types:
                of_type[kind].append(rule)
        else:
            of_any.append(rule)
    return {
        rule.id: [
            other.id
            for other in (*of_type.get(rule.type, ()), *of_any)
            if any(match.produced_by(rule.type, rule.job) for match in other.matches)
        ]
        for rule in enabled
    }


def check_cycles(rules: Sequence[OnDoneRule], problems: Problems) -> None:
    """Tell of every cycle none of whose rules says ``allow_cycle``."""
    graph = followers(rules)
    by_id = {rule.id: rule for rule in rules}
    unbounded = {name: None for name in graph if by_id[name].max_depth is None}
    while cycle := _find_cycle({name: [n for n in graph[name] if n in unbounded] for name in unbounded}):
        rule = by_id[cycle[0]]
        path = " → ".join([*cycle, cycle[0]])
        problems.add(
            rule.place,
            f"what it makes can come back to it, without end: {path}; narrow a match, or say allow_cycle = true and "
            "max_depth = N in one of them",
        )
        del unbounded[cycle[0]]


def on_cycles(rules: Sequence[OnDoneRule]) -> frozenset[str]:
    """The rules that lie on a cycle with one that has ``allow_cycle``: these count the depth."""
    graph = followers(rules)
    back: dict[str, list[str]] = {name: [] for name in graph}
    for name, after in graph.items():
        for other in after:
            back[other].append(name)
    found: set[str] = set()
    for rule in rules:
        if rule.enabled and rule.max_depth is not None:
            found |= _reached(rule.id, graph) & _reached(rule.id, back)
    return frozenset(found)


def describe_chains(rules: Sequence[OnDoneRule]) -> Iterator[str]:
    """Lines that draw what follows what, beginning with the rules that follow none."""
    graph = followers(rules)
    by_id = {rule.id: rule for rule in rules}
    led_to = {other for name, after in graph.items() for other in after if other != name}
    shown: set[str] = set()
    for start in sorted(graph, key=lambda name: name in led_to):
        if start in shown:
            continue
        yield " and ".join(map(str, by_id[start].matches))
        stack = [(start, 1)]
        while stack:
            name, depth = stack.pop()
            rule = by_id[name]
            again = " (see above)" if name in shown and graph[name] else ""
            yield f"{'  ' * depth}→ {rule.type}{f':{rule.job}' if rule.job else ''} [{name}]{again}"
            if name not in shown:
                shown.add(name)
                stack += [(other, depth + 1) for other in reversed(graph[name])]


def _find_cycle(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """The rules of one cycle, in the order they follow each other; empty if there is none."""
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        # The sorter takes the values as predecessors, so it tells the cycle backwards, its first node twice.
        return list(reversed(error.args[1][1:]))
    return []


def _reached(start: str, graph: Mapping[str, Sequence[str]]) -> set[str]:
    """What can be reached from ``start`` in one step or more."""
    seen: set[str] = set()
    stack = list(graph[start])
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack += graph[name]
    return seen
