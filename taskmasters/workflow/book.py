"""The workflows there are: as their files say now, and as they were when runs that still go on began."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from task.outcome import Result
from task.task import Task
from taskmasters.cron.rules import CronRule
from taskmasters.workflow.definition import After, Workflow

__all__ = ["Book"]

#: Older definitions remembered; others are read again.
_MOST = 200


class Book:
    """All workflows. ``read`` reads an older definition as it was stored."""

    def __init__(self, workflows: Sequence[Workflow], read: Callable[[bytes], Workflow]) -> None:
        self.workflows = {workflow.id: workflow for workflow in workflows}
        self._read = read
        self._by_hash = {workflow.hash: workflow for workflow in workflows}
        self._older: dict[str, Workflow] = {}
        self._afters: dict[tuple[str, str | None], list[tuple[Workflow, After]]] = {}
        enabled = [workflow for workflow in workflows if workflow.enabled]
        self._waiting: dict[tuple[str, str], dict[tuple[str, str], None]] = {}
        for workflow in workflows:
            self._index(workflow)
        self._matching = [workflow for workflow in enabled if workflow.matches]
        #: The workflow of each cron rule, by the rule's id.
        self.crons: dict[str, Workflow] = {rule.id: workflow for workflow in enabled for rule in workflow.crons}
        for workflow in enabled:
            for after in workflow.afters:
                for parent in after.parents:
                    self._afters.setdefault(parent, []).append((workflow, after))

    @property
    def cron_rules(self) -> list[CronRule]:
        """The cron starts of all workflows."""
        return [rule for workflow in self.workflows.values() for rule in workflow.crons]

    def by_hash(self, hash: str) -> Workflow | None:
        """The workflow of exactly that content, if it is known here."""
        return self._by_hash.get(hash) or self._older.get(hash)

    def remember(self, hash: str, body: bytes) -> Workflow:
        """Read an older one. Raises SettingsError."""
        if len(self._older) >= _MOST:
            self._older.clear()
        workflow = self._older[hash] = self._read(body)
        self._index(workflow)
        return workflow

    def requested(self, name: str) -> Workflow | None:
        """The workflow that a request of that type is for."""
        workflow = self.workflows.get(name)
        return workflow if workflow is not None and workflow.enabled and workflow.requests else None

    def started_by(self, task: Task, result: Result) -> list[Workflow]:
        """The workflows that a done task starts."""
        return [
            workflow
            for workflow in self._matching
            if any(
                (match.type is None or match.type.match(task.type)) and match.rest(task, result)
                for match in workflow.matches
            )
        ]

    def waiting(self, workflow: str, job: str) -> Sequence[tuple[str, str]]:
        """The jobs of other workflows, as workflow and job, that may depend on that job."""
        return tuple(self._waiting.get((workflow, job), ()))

    def following(self, workflow: str, job: str | None) -> Sequence[tuple[Workflow, After]]:
        """The workflows that begin after that job, or that workflow, has completed."""
        return self._afters.get((workflow, job), ())

    def _index(self, workflow: Workflow) -> None:
        for node in workflow.nodes.values():
            for parent in node.outside:
                self._waiting.setdefault(parent, {})[workflow.id, node.name] = None
