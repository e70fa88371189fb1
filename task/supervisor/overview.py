"""What N processes tell together on the status page of their parent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from time import monotonic
from typing import Any

from task.report import worker_metrics
from task.stats import Stats
from task.status import Metric
from task.supervisor.supervisor import Slot, Supervisor
from task.worker_app import WorkerApp

__all__ = ["Overview"]


class Overview:
    """A :class:`task.status.StatusSource`: sums over all processes, those that have ended included, and each by itself.

    ``app`` is not run; it says what the processes do. What is told is up to a second old.
    """

    def __init__(self, app: WorkerApp, supervisor: Supervisor) -> None:
        self._app = app
        self._supervisor = supervisor
        self._since = time.time()

    def statistics(self) -> dict[str, object]:
        """Everything, for people and scripts."""
        app = self._app
        seen = [_Seen(slot) for slot in self._supervisor.slots]
        stats = _sum(seen)
        return {
            "app": "worker",
            "type": app.kind,
            "topic": app.topic,
            "group": app.group,
            "in": str(app.source),
            "out": str(app.target),
            "uptime_seconds": round(time.time() - self._since, 3),
            "received": stats.received,
            "results": dict(stats.results),
            "mean_task_seconds": round(stats.seconds / stats.runs, 6) if stats.runs else None,
            "held": sum(each.report.get("held", 0) for each in seen),
            "in_progress": [
                {"process": each.slot.number, **entry} for each in seen for entry in each.report.get("in_progress", [])
            ],
            "lease_lost": stats.lease_lost,
            "bus_errors": stats.bus_errors,
            "stalls": stats.stalls,
            "guard": stats.guard,
            "ready": sum(each.ready for each in seen),
            "processes": [each.statistics() for each in seen],
        }

    def healthy(self) -> tuple[bool, str]:
        """The parent works; what its children do, it answers for."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether tasks are being done, if not by all processes."""
        if self._supervisor.stopping:
            return False, "stopping"
        seen = [_Seen(slot) for slot in self._supervisor.slots]
        ready = sum(each.ready for each in seen)
        return ready > 0, f"{ready} of {len(seen)} processes are ready" + "".join(
            f"; {each.slot.number}: {each.why()}" for each in seen if not each.ready
        )

    def metrics(self) -> Iterator[Metric]:
        """What one worker tells, summed up; and for each process the same, as ``taskbus_process_…``."""
        seen = [_Seen(slot) for slot in self._supervisor.slots]
        ready = sum(each.ready for each in seen)
        label = {"task_type": self._app.kind}
        yield from worker_metrics(_sum(seen), sum(each.running for each in seen), self.ready()[0], label)
        yield Metric("taskbus_processes", "gauge", "Processes there should be.", len(seen), label)
        yield Metric("taskbus_processes_ready", "gauge", "Processes ready to do tasks.", ready, label)
        for each in seen:
            own = {**label, "process": str(each.slot.number)}
            for metric in worker_metrics(each.stats, each.running, each.ready, own):
                yield metric._replace(name=metric.name.replace("taskbus_", "taskbus_process_", 1))
            yield Metric(
                "taskbus_process_restarts_total", "counter", "Times it was started again.", each.slot.restarts, own
            )
            cpu, resident = each.report.get("cpu_seconds", 0), each.report.get("resident_bytes", 0)
            yield Metric("taskbus_process_cpu_seconds_total", "counter", "Processor time it has used.", cpu, own)
            yield Metric("taskbus_process_resident_memory_bytes", "gauge", "Memory it occupies.", resident, own)


class _Seen:
    """One slot at one moment; it changes while it is told of."""

    def __init__(self, slot: Slot) -> None:
        past, child = slot.at
        self.slot = slot
        self.child = child
        self.report: dict[str, Any] = (child and child.report) or {}
        self.stats = past.plus(self.report["stats"]) if self.report else past
        self.ready = child is not None and child.ready
        self.running: int = self.report.get("running", 0)

    def why(self) -> str:
        """Why it is not ready, or a word of the bus."""
        if not self.report or (self.child is not None and self.child.silent):
            return self.slot.state
        return str(self.report["ready"][1])

    def statistics(self) -> dict[str, object]:
        child = self.child
        return {
            "process": self.slot.number,
            "pid": child.pid if child else None,
            "state": self.slot.state,
            "detail": self.why(),
            "uptime_seconds": round(monotonic() - child.began, 3) if child else None,
            "restarts": self.slot.restarts,
            "last_end": self.slot.last or None,
            "received": self.stats.received,
            "results": dict(self.stats.results),
            "held": self.report.get("held", 0),
            "bus": self.report.get("bus"),
        }


def _sum(seen: list[_Seen]) -> Stats:
    stats = Stats()
    for each in seen:
        stats = stats.plus(each.stats.snapshot())
    return stats
