"""The workflow taskmaster as a simulation plays it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from task.task import Task, derive_id
from taskmasters.simulate.made import DONE, REQUESTS, Ended, Kind, Made, Maker
from taskmasters.simulate.players import REMEMBERED, Player, buried, decoded
from taskmasters.store import Arrival, Fate, Outgoing
from taskmasters.workflow.alone import WorkflowAlone
from taskmasters.workflow.definition import ATTEMPT, RUN, WORKFLOW, Workflow

__all__ = ["WorkflowPlayer"]

_Came = tuple[Task, Made]
_Apply = Callable[[Sequence[Arrival], float], tuple[list[Fate], list[Outgoing]]]

#: Seconds for which the application keeps runs that ended.
_KEEP = 30 * 86400.0


class WorkflowPlayer(Player):
    """All workflows together, whose cron instants from ``start`` on are fired."""

    topic = REQUESTS

    def __init__(self, workflows: Sequence[Workflow], start: float) -> None:
        self._alone = WorkflowAlone(workflows, start - 1, DONE)
        self._workflows = {workflow.id: workflow for workflow in workflows}
        self._names = {workflow.id: _names(workflow) for workflow in workflows}
        self._itself = Maker("workflow")
        self._cleaned = start

    @property
    def wake(self) -> float | None:
        return self._alone.wake

    def tick(self, now: float) -> list[Made]:
        found = self._sent(self._alone.tick(now), ())
        if now - self._cleaned >= REMEMBERED:
            self._alone.forget(now - _KEEP, now - REMEMBERED)
            self._cleaned = now
        return found

    def take(self, tasks: Sequence[Made], now: float) -> list[Made]:
        return self._apply([(made.task, made) for made in tasks], self._alone.apply_requests, REQUESTS, now)

    def done(self, ended: Sequence[Ended], now: float) -> list[Made]:
        concerned = [(one.task, one.made) for one in ended if self._alone.concerned(one.task, one.result)]
        return self._apply(concerned, self._alone.apply_done, DONE, now) if concerned else []

    def close(self) -> None:
        self._alone.close()

    def _apply(self, came: Sequence[_Came], apply: _Apply, topic: str, now: float) -> list[Made]:
        fates, outgoing = apply([Arrival(task, task.id or "") for task, _ in came], now)
        wrong = [
            buried(self._itself, topic, task, made, fate.reason)
            for (task, made), fate in zip(came, fates, strict=True)
            if fate.code
        ]
        return [*self._sent(outgoing, came), *wrong]

    def _sent(self, outgoing: Sequence[Outgoing], came: Sequence[_Came]) -> list[Made]:
        causes = _Causes(came, self._workflows)
        return [self._made(one, causes) for one in outgoing]

    def _made(self, outgoing: Outgoing, causes: _Causes) -> Made:
        task = decoded(outgoing.body)
        workflow, run = task.meta[WORKFLOW], task.meta[RUN]
        cause = causes.of(run)
        path = self._workflows[workflow].path
        if task.result is not None:
            maker, note = Maker("workflow", path, workflow), f"run {run} ended"
            return Made(outgoing.topic, outgoing.body, task, maker, Kind.END, note, cause=cause)
        id = task.id or ""
        job = self._names[workflow].get((task.type, task.job)) or self._alone.jobs([id])[id]
        attempt = task.meta.get(ATTEMPT, "1")
        note = f"run {run}" if attempt == "1" else f"run {run}, attempt {attempt}"
        return Made(
            outgoing.topic, outgoing.body, task, Maker("workflow", path, f"{workflow}.{job}"), note=note, cause=cause
        )


def _names(workflow: Workflow) -> dict[tuple[str, str | None], str]:
    """The name of the job by type and job of its tasks, where only one has these."""
    found: dict[tuple[str, str | None], list[str]] = {}
    for node in (*workflow.nodes.values(), *workflow.undo.values()):
        found.setdefault((node.type, node.job), []).append(node.name)
    return {key: names[0] for key, names in found.items() if len(names) == 1}


class _Causes:
    """What of all that came at a moment has to do with a run."""

    def __init__(self, came: Sequence[_Came], workflows: Iterable[str]) -> None:
        self._by_run: dict[str, Made] = {}
        for task, made in came:
            for workflow in workflows:
                # What started a run names it.
                self._by_run[derive_id("workflow-run", workflow, task.id or "")] = made
        for task, made in came:
            if RUN in task.meta:
                self._by_run[task.meta[RUN]] = made
        self._last = came[-1][1] if came else None

    def of(self, run: str) -> Made | None:
        """What brought about a task of that run."""
        return self._by_run.get(run, self._last)
