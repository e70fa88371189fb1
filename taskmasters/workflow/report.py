"""What the workflow taskmaster tells about itself on its status page."""

from __future__ import annotations

import time
from collections.abc import Iterator

from task.status import Metric
from taskmasters.cron.rules import instant_text
from taskmasters.reload import RuleFile
from taskmasters.workflow.definition import Workflow
from taskmasters.workflow.taskmaster import WorkflowTaskmaster

__all__ = ["WorkflowReport"]

_FATES = ("completed", "failed", "retried", "started", "repeated", "late", "unmatched", "unfinished", "dead")


class WorkflowReport:
    """A :class:`task.status.StatusSource`. Read from other threads."""

    def __init__(
        self, taskmaster: WorkflowTaskmaster, file: RuleFile[list[Workflow]], settings: dict[str, object]
    ) -> None:
        self._taskmaster = taskmaster
        self._file = file
        self._settings = settings
        self._since = time.time()

    def statistics(self) -> dict[str, object]:
        """Everything, for people and scripts."""
        master = self._taskmaster
        inboxes = [inbox.stats for inbox in master.inboxes]
        return {
            "app": "workflow",
            **self._settings,
            "workflows": len(self._file.rules),
            "rules_reloaded": self._file.reloads,
            "rules_refused": self._file.trouble,
            "uptime_seconds": round(time.time() - self._since, 3),
            "received": sum(stats.received for stats in inboxes),
            "results": self._results(),
            "sent": master.relay.sent,
            "waiting": master.relay.waiting,
            "refused": master.relay.refused,
            "lease_lost": sum(stats.lease_lost for stats in inboxes),
            "bus_errors": sum(stats.bus_errors for stats in inboxes) + master.relay.failed,
            "next": {
                start: None if instant is None else instant_text(instant)
                for start, instant in master.engine.upcoming().items()
            },
            "trouble": master.trouble,
        }

    def healthy(self) -> tuple[bool, str]:
        """The process works; being cut off from the bus or the state is no reason to restart it."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether runs go on."""
        trouble = self._taskmaster.trouble
        return not trouble, trouble or "ok"

    def metrics(self) -> Iterator[Metric]:
        """The same for Prometheus."""
        master, label = self._taskmaster, {"taskmaster": "workflow"}
        inboxes = [inbox.stats for inbox in master.inboxes]
        results = self._results()
        received = sum(stats.received for stats in inboxes)
        yield Metric("taskbus_done_received_total", "counter", "Done tasks and requests received.", received, label)
        for fate in _FATES:
            labels = {**label, "result": fate}
            yield Metric("taskbus_done_total", "counter", "Done tasks and requests by fate.", results[fate], labels)
        yield Metric("taskbus_tasks_made_total", "counter", "Tasks published.", master.relay.sent, label)
        errors = sum(stats.bus_errors for stats in inboxes) + master.relay.failed
        yield Metric("taskbus_publish_errors_total", "counter", "Failed tries to publish or settle.", errors, label)
        yield self._file.metric(label)
        yield Metric("taskbus_ready", "gauge", "1 while runs go on.", int(self.ready()[0]), label)

    def _results(self) -> dict[str, int]:
        inboxes = [inbox.stats.results for inbox in self._taskmaster.inboxes]
        return {fate: sum(results[fate] for results in inboxes) for fate in _FATES}
