"""What the alerts taskmaster tells about itself on its status page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from task.status import Metric
from taskmasters.alerts.engine import FATES
from taskmasters.alerts.rules import AlertFile
from taskmasters.alerts.taskmaster import AlertsTaskmaster
from taskmasters.reload import RuleFile
from taskmasters.standby import StandBy

__all__ = ["AlertsReport"]


class AlertsReport:
    """A :class:`task.status.StatusSource`. Read from other threads."""

    def __init__(
        self, standby: StandBy[AlertsTaskmaster], file: RuleFile[AlertFile], settings: dict[str, object]
    ) -> None:
        self._standby = standby
        self._file = file
        self._settings = settings
        self._since = time.time()

    def statistics(self) -> dict[str, object]:
        """Everything, for people and scripts."""
        master = self._standby.current
        said: dict[str, object] = {
            "app": "alerts",
            **self._settings,
            "uptime_seconds": round(time.time() - self._since, 3),
            "leads": self._standby.leads,
            "rules_reloaded": self._file.reloads,
            "rules_refused": self._file.trouble,
        }
        if master is None:
            return {**said, "trouble": self._standby.trouble}
        return {
            **said,
            "received": sum(inbox.stats.received for inbox in master.inboxes),
            "results": dict(_results(master)),
            "unfinished": master.unfinished,
            "notices_pending": master.pending,
            "channels": {
                one.channel.id: {
                    "leads_to": one.channel.shown,
                    "told": one.told,
                    "failed": one.failed,
                    "trouble": one.trouble,
                }
                for one in master.notifiers
            },
            "trouble": master.trouble or self._standby.trouble,
        }

    def healthy(self) -> tuple[bool, str]:
        """The process works; a channel that is away is no reason to restart it."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether alerts are heard and told, or would be if it were not standing by."""
        master = self._standby.current
        trouble = self._standby.trouble or ("" if master is None else master.trouble)
        return not trouble, trouble or "ok"

    def metrics(self) -> Iterator[Metric]:
        """The same for Prometheus."""
        master, label = self._standby.current, {"taskmaster": "alerts"}
        text = "1 unless another replica is at work."
        yield Metric("taskbus_leads", "gauge", text, int(self._standby.leads), label)
        yield self._file.metric(label)
        yield Metric("taskbus_ready", "gauge", "1 while alerts are heard and told.", int(self.ready()[0]), label)
        if master is None:
            return
        received = sum(inbox.stats.received for inbox in master.inboxes)
        yield Metric("taskbus_received_total", "counter", "Messages received.", received, label)
        results = _results(master)
        for fate in FATES:
            labels = {**label, "result": fate}
            yield Metric("taskbus_fates_total", "counter", "Messages by fate.", results[fate], labels)
        for one in master.notifiers:
            labels = {**label, "channel": one.channel.id}
            yield Metric("taskbus_notices_total", "counter", "Notices told.", one.told, labels)
            yield Metric("taskbus_notices_failed_total", "counter", "Tries to tell that failed.", one.failed, labels)
        if master.pending is not None:
            yield Metric("taskbus_notices_pending", "gauge", "Notices to be told.", master.pending, label)
        if master.unfinished is not None:
            text = "Tasks with a deadline that are not done."
            yield Metric("taskbus_unfinished", "gauge", text, master.unfinished, label)


def _results(master: AlertsTaskmaster) -> Counter[str]:
    total: Counter[str] = Counter()
    for inbox in master.inboxes:
        total.update(inbox.stats.results)
    return total
