"""What a workflow file says, compiled: one graph of nodes. Steps, chains, groups and chords are graphs of some shape.

A *node* is a job of the file. In a run it has one task, or one for each item of ``for_each``, or one for each task of
the node it names as ``each``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bus.url import nearest
from task.outcome import Result
from task.retry import Backoff
from task.task import derive_id
from taskmasters.cron.rules import CronRule
from taskmasters.on_done.patterns import Match, Texts
from taskmasters.rules import Place
from taskmasters.templates import Template
from taskmasters.workflow.items import Source
from taskmasters.zone import Zone

__all__ = [
    "ATTEMPT",
    "RESERVED",
    "RUN",
    "RUN_FROM",
    "RUN_KEY",
    "RUN_MOMENT",
    "WORKFLOW",
    "After",
    "Condition",
    "Node",
    "On",
    "Policy",
    "Retry",
    "Workflow",
]

#: Meta keys of every task of a workflow.
WORKFLOW, RUN, ATTEMPT = "workflow", "run", "attempt"
RESERVED = (WORKFLOW, RUN, ATTEMPT)
#: Meta keys of a request: the key of its run, the moment its times show, and the job or step it begins with.
RUN_KEY, RUN_MOMENT, RUN_FROM = "run_key", "run_moment", "run_from"


class Policy(StrEnum):
    """What a failed node means for its run."""

    STOP = "stop"  #: nothing more is started; what was sent comes to its end; the run has failed
    CONTINUE = "continue"  #: what depends on it goes on as if it had completed
    COMPENSATE = "compensate"  #: as stop, and then what was completed is undone, last first


class On(StrEnum):
    """How a parent must have ended for a node to be done."""

    COMPLETED = "completed"
    FAILED = "failed"
    ENDED = "ended"  #: completed, failed or skipped


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a task that ended with ``error``, or not in time, is tried again, and when."""

    count: int = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(jitter=False))
    jitter: bool = True

    def delay(self, job: str, attempt: int) -> float:
        """Seconds until the attempt after ``attempt``. Jitter takes up to half of them, always the same for a task."""
        whole = self.backoff.delay(attempt)
        if not self.jitter:
            return whole
        return whole * (0.5 + int(derive_id("retry", job, str(attempt))[:8], 16) / 2**33)


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be true of the done tasks of one job (all of them), or of the task that started the run."""

    job: str
    value: Texts | None
    msg: Texts | None
    results: frozenset[str]
    meta: Mapping[str, Texts]

    def holds(self, result: str, value: str, msg: str, meta: Mapping[str, str]) -> bool:
        """Whether it is true of one."""
        return (
            (not self.results or result in self.results)
            and (self.value is None or self.value.match(value))
            and (self.msg is None or self.msg.match(msg))
            and all(texts.match(meta.get(key)) for key, texts in self.meta.items())
        )

    def __str__(self) -> str:
        said = [f"result {' or '.join(r for r in Result if r in self.results)}"] if self.results else []
        said += [f"{name} {texts}" for name, texts in (("value", self.value), ("msg", self.msg)) if texts]
        return f"{self.job} has " + ", ".join([*said, *(f"meta {key} {texts}" for key, texts in self.meta.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One job. ``deadline`` and ``offset`` are seconds. ``undoes`` names the node a compensation is for.

    ``outside`` are jobs of other workflows it depends on, each as workflow and job: those of the runs with its key.
    """

    name: str
    step: str | None
    type: str
    job: str | None
    topic: str
    task: Template
    meta: Mapping[str, Template]
    offset: float
    depends_on: tuple[str, ...]
    any: bool
    on: On
    conditions: tuple[Condition, ...]
    source: Source | None
    each: str | None
    retry: Retry
    deadline: float | None
    on_failure: Policy
    outside: tuple[tuple[str, str], ...] = ()
    undoes: str | None = None
    place: Place = ()

    @property
    def waits(self) -> int:
        """How many parents it waits for."""
        return len(self.depends_on) + len(self.outside)

    @property
    def templates(self) -> Iterator[Template]:
        """All its templates."""
        yield self.task
        yield from self.meta.values()
        if self.source is not None:
            yield from self.source.templates

    @property
    def uses(self) -> dict[str, set[str]]:
        """Jobs whose results its templates take, with the fields."""
        found: dict[str, set[str]] = {}
        for template in self.templates:
            for name, fields in template.jobs.items():
                found.setdefault(name, set()).update(fields)
        return found


@dataclass(frozen=True, slots=True)
class After:
    """A run begins when runs of other workflows with its key have completed: all of these, or any.

    A parent is a workflow and the name of one of its jobs; None is the workflow as a whole.
    """

    parents: tuple[tuple[str, str | None], ...]
    any: bool
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One file. ``hash`` names this very content; ``undo`` are the compensations in the order they are done."""

    id: str
    path: str
    hash: str
    body: bytes
    zone: Zone
    keep_meta: Texts
    max_runs: int | None
    requests: bool
    crons: Sequence[CronRule]
    matches: Sequence[Match]
    afters: Sequence[After]
    nodes: Mapping[str, Node]
    undo: Mapping[str, Node]
    #: Node → the nodes that depend on it, and those that are for each of its tasks.
    children: Mapping[str, Sequence[str]]
    eaches: Mapping[str, Sequence[str]]
    enabled: bool

    def node(self, name: str) -> Node:
        """The node or compensation of that name."""
        return self.nodes[name] if name in self.nodes else self.undo[name]

    def dependents(self, name: str) -> Sequence[str]:
        """The nodes that have ``name`` in their ``depends_on``."""
        return self.children.get(name, ())

    def followers(self, name: str) -> Sequence[str]:
        """The nodes that are for each task of ``name``."""
        return self.eaches.get(name, ())

    def part(self, name: str) -> frozenset[str]:
        """The jobs of a run that begins with the job or step ``name``: that, and what follows from it.

        Raises:
            ValueError: if there is none of that name, or it cannot be begun with.
        """
        first = [node for node in self.nodes.values() if name in (node.name, node.step)]
        if not first:
            known = sorted({name for node in self.nodes.values() for name in (node.name, node.step) if name})
            raise ValueError(f"the workflow {self.id} has no job or step {name!r}{nearest(name, known)}")
        for node in first:
            if node.each is not None and not any(node.each == other.name for other in first):
                raise ValueError(f"{node.name} has a task for each task of {node.each}: begin with {node.each}")
        found = {node.name for node in first}
        stack = list(found)
        while stack:
            reached = stack.pop()
            new = {*self.dependents(reached), *self.followers(reached)} - found
            found |= new
            stack += new
        return frozenset(found)

    def handlers(self, name: str) -> set[str]:
        """The nodes that are there for the failure of ``name``, and what follows from them."""
        found = {child for child in self.dependents(name) if self.node(child).on is not On.COMPLETED}
        stack = list(found)
        while stack:
            reached = stack.pop()
            for child in (*self.dependents(reached), *self.followers(reached)):
                if child not in found:
                    found.add(child)
                    stack.append(child)
        return found
