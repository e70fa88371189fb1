"""What a worker application tells about itself on its status page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from time import monotonic

from task.stats import Stats
from task.status import Metric
from task.worker_app import WorkerApp

__all__ = ["Report", "in_progress", "worker_metrics"]

_RESULTS = ("complete", "error", "alert", "warn")
_GUARD = {
    "waits": "Tasks that waited for the same one.",
    "requeues": "Tasks handed back as the same one was being done.",
    "repeats": "Tasks answered without being done.",
    "lost": "Tasks whose outcome did not count, as their guard was lost.",
}


class Report:
    """A :class:`task.status.StatusSource` for a :class:`WorkerApp`. Read from other threads."""

    def __init__(self, app: WorkerApp) -> None:
        self._app = app

    def statistics(self) -> dict[str, object]:
        """Everything, for people and scripts."""
        app, stats = self._app, self._app.stats
        return {
            "app": "worker",
            "type": app.kind,
            "topic": app.topic,
            "group": app.group,
            "in": str(app.source),
            "out": str(app.target),
            "uptime_seconds": round(time.time() - stats.since, 3),
            "received": stats.received,
            "results": dict(stats.results),
            "mean_task_seconds": round(stats.seconds / stats.runs, 6) if stats.runs else None,
            "held": app.receiver.held if app.receiver else 0,
            "in_progress": in_progress(app),
            "lease_lost": stats.lease_lost,
            "bus_errors": stats.bus_errors,
            "stalls": stats.stalls,
            "guard": stats.guard,
            "bus": {"ok": app.bus_health.ok, "detail": app.bus_health.detail},
        }

    def healthy(self) -> tuple[bool, str]:
        """The process works; being cut off from the bus is no reason to restart it."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Receiving, with a bus that works and results that get through."""
        app = self._app
        if app.receiver is None or not app.receiver.receiving:
            return False, "not receiving"
        trouble = app.receiver.trouble or (app.launcher.trouble if app.launcher is not None else "")
        if trouble:
            return False, trouble
        return app.bus_health.ok, app.bus_health.detail or "ok"

    def metrics(self) -> Iterator[Metric]:
        """The same for Prometheus."""
        app = self._app
        running = len(app.launcher.running()) if app.launcher else 0
        return worker_metrics(app.stats, running, self.ready()[0], {"task_type": app.kind})


def in_progress(app: WorkerApp) -> list[dict[str, object]]:
    """What is being done right now."""
    now = monotonic()
    return [
        {
            "id": assignment.task.id,
            "value": assignment.task.value,
            "attempt": assignment.delivery.attempt,
            "seconds": round(now - assignment.began, 3) if assignment.began else 0.0,
            "progress": assignment.context._progress,
        }
        for assignment in (app.launcher.running() if app.launcher else [])
    ]


def worker_metrics(stats: Stats, running: int, ready: bool, label: Mapping[str, str]) -> Iterator[Metric]:
    """What a worker, or several together, tells Prometheus."""
    results = stats.results
    yield Metric("taskbus_tasks_received_total", "counter", "Tasks received.", stats.received, label)
    for result in _RESULTS:
        yield Metric(
            "taskbus_tasks_total", "counter", "Tasks done, by result.", results[result], {**label, "result": result}
        )
    for name, help in (("retried", "Attempts to be repeated."), ("dead", "Tasks dead-lettered.")):
        yield Metric(f"taskbus_tasks_{name}_total", "counter", help, results[name], label)
    yield Metric("taskbus_tasks_released_total", "counter", "Tasks handed back.", results["released"], label)
    yield Metric("taskbus_lease_lost_total", "counter", "Leases lost while held.", stats.lease_lost, label)
    yield Metric("taskbus_publish_errors_total", "counter", "Failed tries to settle.", stats.bus_errors, label)
    yield Metric("taskbus_stalls_total", "counter", "Reconnections as none came.", stats.stalls, label)
    for what, number in stats.guard.items():
        yield Metric(f"taskbus_guard_{what}_total", "counter", _GUARD[what], number, label)
    yield Metric("taskbus_tasks_in_progress", "gauge", "Tasks being done now.", running, label)
    yield Metric("taskbus_task_seconds_sum", "summary", "Seconds user code ran.", stats.seconds, label)
    yield Metric("taskbus_task_seconds_count", "summary", "Times user code ran.", stats.runs, label)
    yield Metric("taskbus_ready", "gauge", "1 while ready to do tasks.", int(ready), label)
