"""Whether the jobs of a workflow make a graph: names are known, nothing waits for itself, nothing is read too early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from bus.url import nearest
from taskmasters.rules import Problems
from taskmasters.templates import ITEM, ROW
from taskmasters.workflow.definition import Node
from taskmasters.workflow.reading import REQUESTED

__all__ = ["check_graph", "in_order", "resolve", "reversed_edges"]


def resolve(nodes: Sequence[Node], steps: Mapping[str, Sequence[str]], problems: Problems) -> dict[str, Node]:
    """The nodes by name, with the names of steps in ``depends_on`` replaced by their jobs. Unknown names are told."""
    found: dict[str, Node] = {}
    for node in nodes:
        # A step of one job may be called as that job is: both names mean the same.
        if node.name in found or list(steps.get(node.name, [node.name])) != [node.name]:
            problems.add((*node.place, "name"), f"{node.name!r} is taken already: give each job and step its own name")
        found[node.name] = node
    known = sorted((*found, *steps))
    for name, node in found.items():
        parents: dict[str, None] = {}
        outside: dict[tuple[str, str], None] = {}
        for parent in node.depends_on:
            workflow, dot, job = parent.partition(".")
            if dot:
                outside[workflow, job] = None
            elif parent in steps:
                parents |= dict.fromkeys(steps[parent])
            elif parent in found:
                parents[parent] = None
            else:
                problems.add((*node.place, "depends_on"), f"there is no job {parent!r}{nearest(parent, known)}")
        if node.each is not None and node.each not in found:
            problems.add((*node.place, "each"), f"there is no job {node.each!r}{nearest(node.each, sorted(found))}")
        found[name] = replace(node, depends_on=tuple(parents), outside=tuple(outside))
    return found


def check_graph(nodes: Mapping[str, Node], problems: Problems) -> None:
    """Tell of cycles, and of what is used of jobs that do not come before."""
    before = {name: _parents(node) for name, node in nodes.items()}
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        cycle = error.args[1]
        # The sorter tells a cycle from parent to child.
        problems.add(nodes[cycle[0]].place, f"waits for itself: {' → '.join(cycle)}")
        return
    earlier: dict[str, set[str]] = {}
    for name in order:
        earlier[name] = set(before[name]).union(*(earlier[parent] for parent in before[name]))
    for name, node in nodes.items():
        _check_uses(node, earlier[name], nodes, problems)


def _check_uses(node: Node, earlier: set[str], nodes: Mapping[str, Node], problems: Problems) -> None:
    for template, key in ((node.task, ("task",)), *((t, ("meta", k)) for k, t in node.meta.items())):
        _check_jobs(node, sorted(template.jobs), key, earlier, nodes, problems)
        if node.each is not None and template.tokens & {*ITEM, *ROW} - {"index"} and not _has_items(node, nodes):
            problems.add((*node.place, *key), f"uses an item, and {node.each!r} has none: it has no for_each")
    if node.source is not None:
        for template in node.source.templates:
            _check_jobs(node, sorted(template.jobs), ("for_each",), earlier, nodes, problems)
    _check_jobs(node, [c.job for c in node.conditions if c.job != REQUESTED], ("if",), earlier, nodes, problems)


def _check_jobs(
    node: Node,
    used: Sequence[str],
    key: tuple[str, ...],
    earlier: set[str],
    nodes: Mapping[str, Node],
    problems: Problems,
) -> None:
    for name in used:
        if name not in nodes:
            problems.add((*node.place, *key), f"there is no job {name!r}{nearest(name, sorted(nodes))}")
        elif name not in earlier and name != node.undoes:
            problems.add((*node.place, *key), f"{name!r} does not come before this job: name it in depends_on")


def _has_items(node: Node, nodes: Mapping[str, Node]) -> bool:
    while node.each is not None:
        node = nodes[node.each]
    return node.source is not None


def in_order(nodes: Mapping[str, Node]) -> list[str]:
    """The names, parents first."""
    return list(TopologicalSorter({name: _parents(node) for name, node in nodes.items()}).static_order())


def reversed_edges(nodes: Sequence[Node]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Who depends on each node, and who is for each of its tasks."""
    children: dict[str, list[str]] = {}
    eaches: dict[str, list[str]] = {}
    for node in nodes:
        for parent in node.depends_on:
            children.setdefault(parent, []).append(node.name)
        if node.each is not None:
            eaches.setdefault(node.each, []).append(node.name)
    return children, eaches


def _parents(node: Node) -> tuple[str, ...]:
    return node.depends_on if node.each is None else (node.each,)
