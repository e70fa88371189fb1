"""What the cron taskmaster tells about itself on its status page."""

from __future__ import annotations

import time
from collections.abc import Iterator

from task.status import Metric
from taskmasters.cron.rules import CronRule, instant_text
from taskmasters.cron.taskmaster import CronTaskmaster
from taskmasters.reload import RuleFile

__all__ = ["CronReport"]

#: Rules shown with their next instant.
_MOST = 1000


class CronReport:
    """A :class:`task.status.StatusSource`. Read from other threads."""

    def __init__(self, taskmaster: CronTaskmaster, file: RuleFile[list[CronRule]], bus: str, since: float) -> None:
        self._taskmaster = taskmaster
        self._file = file
        self._bus = bus
        self._since = since

    def statistics(self) -> dict[str, object]:
        """Everything, for people and scripts."""
        taskmaster = self._taskmaster
        upcoming = list(taskmaster.scheduler.upcoming().items())[:_MOST]
        return {
            "app": "cron",
            "file": self._file.path,
            "bus": self._bus,
            "uptime_seconds": round(time.time() - self._since, 3),
            "rules": len(taskmaster.rules),
            "rules_reloaded": self._file.reloads,
            "rules_refused": self._file.trouble,
            "leads": taskmaster.leads,
            "sent": taskmaster.sent,
            "publish_errors": taskmaster.failed,
            "missed": taskmaster.scheduler.missed,
            "trouble": dict(taskmaster.trouble),
            "next": {rule: None if instant is None else instant_text(instant) for rule, instant in upcoming},
        }

    def healthy(self) -> tuple[bool, str]:
        """The process works; being cut off from the bus is no reason to restart it."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether what comes due gets through."""
        trouble = list(self._taskmaster.trouble.values())
        return (False, trouble[0]) if trouble else (True, "ok")

    def metrics(self) -> Iterator[Metric]:
        """The same for Prometheus."""
        taskmaster = self._taskmaster
        label = {"taskmaster": "cron"}
        yield Metric("taskbus_tasks_made_total", "counter", "Tasks published.", taskmaster.sent, label)
        yield Metric("taskbus_publish_errors_total", "counter", "Failed tries to publish.", taskmaster.failed, label)
        missed = taskmaster.scheduler.missed
        yield Metric("taskbus_cron_missed_total", "counter", "Rules that missed instants.", missed, label)
        leads = "1 unless another replica is at work."
        yield Metric("taskbus_leads", "gauge", leads, int(taskmaster.leads), label)
        yield Metric("taskbus_cron_rules", "gauge", "Rules that are enabled.", len(taskmaster.rules), label)
        yield self._file.metric(label)
        yield Metric("taskbus_ready", "gauge", "1 while tasks get through.", int(self.ready()[0]), label)
