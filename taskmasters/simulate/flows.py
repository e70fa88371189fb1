"""The workflow taskmaster as a simulation plays it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from task.task import Task, derive_id
from taskmasters.simulate.made import DONE, REQUESTS, Ended, Kind, Made, Maker
from taskmasters.simulate.players import REMEMBERED, Player, buried, decoded, slices
from taskmasters.store import Arrival, Fate, Outgoing
from taskmasters.workflow.alone import WorkflowAlone
from taskmasters.workflow.definition import ATTEMPT, RUN, WORKFLOW, Workflow

__all__ = ["WorkflowPlayer"]

#: Seconds for which the application keeps runs that ended.
_KEEP = 30 * 86400.0


class WorkflowPlayer(Player):
    """All workflows together, whose cron instants from ``start`` on are fired."""

    topic = REQUESTS

    def __init__(self, workflows: Sequence[Workflow], start: float) -> None:
        self._alone = WorkflowAlone(workflows, start - 1, DONE)
        self._wake = self._alone.wake
        self._files = {workflow.id: workflow.path for workflow in workflows}
        self._itself = Maker("workflow")
        self._cleaned = start

    @property
    def wake(self) -> float | None:
        return self._wake

    def tick(self, now: float) -> list[Made]:
        found = self._sent(now, ())
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

    def _apply(
        self,
        came: Sequence[tuple[Task, Made]],
        apply: Callable[[Sequence[Arrival], float], list[Fate]],
        topic: str,
        now: float,
    ) -> list[Made]:
        arrivals = [Arrival(task, task.id or "") for task, _ in came]
        fates = [fate for some in slices(arrivals) for fate in apply(some, now)]
        wrong = [
            buried(self._itself, topic, task, made, fate.reason)
            for (task, made), fate in zip(came, fates, strict=True)
            if fate.code
        ]
        return [*self._sent(now, came), *wrong]

    def _sent(self, now: float, came: Sequence[tuple[Task, Made]]) -> list[Made]:
        outgoing = self._alone.tick(now)
        self._wake = self._alone.wake
        if not outgoing:
            return []
        names = self._alone.jobs([one.id.partition(".")[0] for one in outgoing])
        causes = _Causes(came, self._files)
        return [self._made(one, names, causes) for one in outgoing]

    def _made(self, outgoing: Outgoing, names: dict[str, str], causes: _Causes) -> Made:
        task = decoded(outgoing.body)
        workflow, run = task.meta.get(WORKFLOW, ""), task.meta.get(RUN, "")
        file = self._files.get(workflow, "")
        job = names.get(outgoing.id.partition(".")[0])
        if job is None:
            maker, note = Maker("workflow", file, workflow), f"run {run} ended"
            return Made(outgoing.topic, outgoing.body, task, maker, Kind.END, note, cause=causes.of(run))
        attempt = task.meta.get(ATTEMPT, "1")
        note = f"run {run}" if attempt == "1" else f"run {run}, attempt {attempt}"
        maker = Maker("workflow", file, f"{workflow}.{job}")
        return Made(outgoing.topic, outgoing.body, task, maker, note=note, cause=causes.of(run))


class _Causes:
    """What of all that came at a moment has to do with a run."""

    def __init__(self, came: Sequence[tuple[Task, Made]], workflows: Iterable[str]) -> None:
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
