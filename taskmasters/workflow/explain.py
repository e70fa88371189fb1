"""What ``--check`` says about workflows, and the tasks of ``--dry-run``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bus.units import format_duration
from task.codec import decode, encode_done
from task.errors import SettingsError
from task.task import Task
from task.times import format_time
from taskmasters.cron.rules import instant_text
from taskmasters.workflow.alone import WorkflowAlone
from taskmasters.workflow.definition import Node, On, Policy, Workflow
from taskmasters.zone import EPOCH

__all__ = ["explain", "play"]


def explain(workflows: Sequence[Workflow], now: float) -> Iterator[str]:
    """Lines that say of each workflow how it starts and what it does."""
    for workflow in workflows:
        yield workflow.id + ("" if workflow.enabled else " (set aside)")
        yield from (f"  starts: {text}" for text in _starts(workflow, now))
        if workflow.max_runs is not None:
            yield f"  at most {workflow.max_runs} runs at a time; others queue"
        step: str | None = None
        for node in workflow.nodes.values():
            if node.step != step and node.step is not None:
                yield f"  step {node.step}"
            step = node.step
            yield f"  {'  ' if step else ''}{_node(node)}"
        for node in workflow.undo.values():
            yield f"  {_node(node)}"


def _starts(workflow: Workflow, now: float) -> Iterator[str]:
    for rule in workflow.crons:
        instant = rule.schedule.next(int(now))
        when = "never" if instant is None else instant_text(instant)
        yield f"{rule.schedule.explain()}; next {when}"
    for match in workflow.matches:
        yield f"when done: {match}"
    for after in workflow.afters:
        names = [f"{name}.{job}" if job else name for name, job in after.parents]
        yield f"after {(' or ' if after.any else ' and ').join(names)}"
    if workflow.requests:
        yield f"by request: a task of type {workflow.id}"


def _node(node: Node) -> str:
    said = [f"{node.name}: {node.type}{f':{node.job}' if node.job else ''} {node.task.text!r}"]
    if node.topic != node.type:
        said.append(f"on topic {node.topic}")
    if node.source is not None:
        said.append(f"for each {node.source}")
    if node.each is not None:
        said.append(f"for each task of {node.each}")
    parents = [*node.depends_on, *map(".".join, node.outside)]
    if parents:
        how = {On.COMPLETED: "", On.FAILED: " failed", On.ENDED: " ended"}[node.on]
        said.append(f"after {(' or ' if node.any else ' and ').join(parents)}{how}")
    said += [f"if {condition}" for condition in node.conditions]
    if node.retry.count:
        said.append(f"{node.retry.count} retries ({node.retry.backoff.kind})")
    if node.deadline is not None:
        said.append(f"within {format_duration(node.deadline)}")
    if node.on_failure is not Policy.STOP and node.undoes is None:
        said.append(f"on failure {node.on_failure}")
    return ", ".join(said)


def play(workflow: Workflow, request: Task, now: float) -> Iterator[bytes]:
    """The tasks this request would make if every task completed at once, in the order they are sent.

    Raises:
        SettingsError: if the run would fail.
    """
    alone = WorkflowAlone([replace(workflow, enabled=True, requests=True, crons=())], now, None)
    try:
        waiting = deque(alone.request(request, now))
        while waiting:
            body = waiting.popleft().body
            yield body
            waiting += alone.done(_completed(body), now)
        for _, error in alone.failures():
            raise SettingsError(f"{workflow.path}: a run would fail, if every task completed without meta: {error}")
    finally:
        alone.close()


def _completed(body: bytes) -> Task:
    task = decode(body, len(body))
    at = format_time(task.created or EPOCH)
    return decode(encode_done(task, "complete", "", at, at), len(body) * 2 + 1000)
