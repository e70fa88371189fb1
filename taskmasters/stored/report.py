"""What such a taskmaster tells about itself on its status page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from task.status import Metric
from taskmasters.reload import RuleFile
from taskmasters.stored.taskmaster import StoredTaskmaster

__all__ = ["StoredReport"]


class StoredReport:
    """A :class:`task.status.StatusSource`. Read from other threads.

    ``name`` is that of the application, ``fates`` what may become of what it receives.
    """

    def __init__(
        self,
        name: str,
        fates: Sequence[str],
        taskmaster: StoredTaskmaster,
        settings: dict[str, object],
        file: RuleFile[Any] | None = None,
    ) -> None:
        self._name = name
        self._fates = fates
        self._taskmaster = taskmaster
        self._settings = settings
        self._file = file
        self._since = time.time()

    def statistics(self) -> dict[str, object]:
        """Everything, for people and scripts."""
        stats, relay = self._taskmaster.inbox.stats, self._taskmaster.relay
        file = self._file
        rules = {} if file is None else {"rules_reloaded": file.reloads, "rules_trouble": file.trouble}
        return {
            "app": self._name,
            **self._settings,
            "uptime_seconds": round(time.time() - self._since, 3),
            "received": stats.received,
            "results": dict(stats.results),
            "sent": relay.sent,
            "waiting": relay.waiting,
            "refused": relay.refused,
            "lease_lost": stats.lease_lost,
            "bus_errors": stats.bus_errors + relay.failed,
            **rules,
            **(self._taskmaster.beside.statistics() if self._taskmaster.beside else {}),
            "trouble": self._taskmaster.trouble,
        }

    def healthy(self) -> tuple[bool, str]:
        """The process works; being cut off from the bus or the state is no reason to restart it."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether tasks come in and go out."""
        trouble = self._taskmaster.trouble
        return not trouble, trouble or "ok"

    def metrics(self) -> Iterator[Metric]:
        """The same for Prometheus."""
        stats, relay = self._taskmaster.inbox.stats, self._taskmaster.relay
        label = {"taskmaster": self._name}
        yield Metric("taskbus_received_total", "counter", "Messages received.", stats.received, label)
        for fate in self._fates:
            labels = {**label, "result": fate}
            yield Metric("taskbus_fates_total", "counter", "Messages by fate.", stats.results[fate], labels)
        yield Metric("taskbus_tasks_made_total", "counter", "Tasks published.", relay.sent, label)
        if relay.waiting is not None:
            yield Metric("taskbus_waiting", "gauge", "Tasks that wait to be sent.", relay.waiting, label)
        errors = stats.bus_errors + relay.failed
        yield Metric("taskbus_publish_errors_total", "counter", "Failed tries to publish or settle.", errors, label)
        if self._file is not None:
            yield self._file.metric(label)
        yield Metric("taskbus_ready", "gauge", "1 while tasks come in and go out.", int(self.ready()[0]), label)
