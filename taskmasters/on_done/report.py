"""What the on-done taskmaster tells about itself on its status page."""

from __future__ import annotations

import time
from collections.abc import Iterator

from task.status import Metric
from taskmasters.on_done.rules import OnDoneRule
from taskmasters.on_done.taskmaster import OnDoneTaskmaster
from taskmasters.reload import RuleFile

__all__ = ["OnDoneReport"]

_RESULTS = ("chained", "waiting", "repeated", "unmatched", "unfinished", "dead")


class OnDoneReport:
    """A :class:`task.status.StatusSource`. Read from other threads."""

    def __init__(
        self, taskmaster: OnDoneTaskmaster, file: RuleFile[list[OnDoneRule]], settings: dict[str, object]
    ) -> None:
        self._taskmaster = taskmaster
        self._file = file
        self._settings = settings

    def statistics(self) -> dict[str, object]:
        """Everything, for people and scripts."""
        stats = self._taskmaster.stats
        return {
            "app": "on-done",
            **self._settings,
            "rules": len(self._file.rules),
            "rules_reloaded": self._file.reloads,
            "rules_refused": self._file.trouble,
            "uptime_seconds": round(time.time() - stats.since, 3),
            "received": stats.received,
            "results": dict(stats.results),
            "sent": self._taskmaster.sent,
            "joins_given_up": self._taskmaster.given_up,
            "lease_lost": stats.lease_lost,
            "bus_errors": stats.bus_errors,
            "trouble": self._taskmaster.trouble,
        }

    def healthy(self) -> tuple[bool, str]:
        """The process works; being cut off from the bus is no reason to restart it."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether what it makes gets through."""
        trouble = self._taskmaster.trouble
        return not trouble, trouble or "ok"

    def metrics(self) -> Iterator[Metric]:
        """The same for Prometheus."""
        stats, label = self._taskmaster.stats, {"taskmaster": "on-done"}
        yield Metric("taskbus_done_received_total", "counter", "Done tasks received.", stats.received, label)
        for result in _RESULTS:
            value = stats.results[result]
            yield Metric("taskbus_done_total", "counter", "Done tasks by fate.", value, {**label, "result": result})
        given_up = "Joins for which some done task did not come in time."
        yield Metric("taskbus_joins_given_up_total", "counter", given_up, self._taskmaster.given_up, label)
        yield Metric("taskbus_tasks_made_total", "counter", "Tasks published.", self._taskmaster.sent, label)
        yield Metric("taskbus_publish_errors_total", "counter", "Failed tries to settle.", stats.bus_errors, label)
        yield Metric("taskbus_lease_lost_total", "counter", "Leases lost while held.", stats.lease_lost, label)
        yield self._file.metric(label)
        yield Metric("taskbus_ready", "gauge", "1 while tasks get through.", int(self.ready()[0]), label)
