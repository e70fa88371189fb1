"""What ``--check`` says about workflows, and the tasks of ``--dry-run``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bus.units import format_duration
from task.codec import decode, encode_done
from task.task import Task, derive_id
from task.times import format_time
from taskmasters.cron.rules import instant_text
from taskmasters.store import Store, outbox
from taskmasters.store.inbox import Arrival
from taskmasters.workflow.definition import Node, On, Policy, Workflow
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.zone import EPOCH

__all__ = ["explain", "play"]

_SLICE = 500


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
    if node.depends_on:
        how = {On.COMPLETED: "", On.FAILED: " failed", On.ENDED: " ended"}[node.on]
        said.append(f"after {(' or ' if node.any else ' and ').join(node.depends_on)}{how}")
    said += [f"if {condition}" for condition in node.conditions]
    if node.retry.count:
        said.append(f"{node.retry.count} retries ({node.retry.backoff.kind})")
    if node.deadline is not None:
        said.append(f"within {format_duration(node.deadline)}")
    if node.on_failure is not Policy.STOP and node.undoes is None:
        said.append(f"on failure {node.on_failure}")
    return ", ".join(said)


def play(engine: WorkflowEngine, store: Store, requests: Sequence[Task], now: float) -> Iterator[bytes]:
    """The tasks that these requests would make if every task completed at once. The store is to be a fresh one."""
    arrivals = [Arrival(task, task.id or derive_id("dry-run", str(n))) for n, task in enumerate(requests)]
    for fate in store.call(lambda tx: engine.requests(tx, arrivals, now)):
        if fate.code:
            raise ValueError(fate.reason)
    while batch := store.call(lambda tx: outbox.due(tx, now, _SLICE)):
        yield from (stored.message.body for stored in batch)
        store.call(lambda tx, sent=batch: outbox.sent(tx, sent, now))  # type: ignore[misc]
        done = [_completed(stored.message.body) for stored in batch]
        store.call(lambda tx, tasks=done: engine.done(tx, [Arrival(task, task.id or "") for task in tasks], now))  # type: ignore[misc]


def _completed(body: bytes) -> Task:
    task = decode(body, len(body))
    if task.result is not None:
        return task
    at = format_time(task.created or EPOCH)
    return decode(encode_done(task, "complete", "", at, at), len(body) * 2 + 1000)
