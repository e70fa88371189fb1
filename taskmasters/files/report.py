"""What the files taskmaster tells about itself on its status page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from task.status import Metric
from taskmasters.files.rules import FileRule
from taskmasters.files.taskmaster import FilesTaskmaster
from taskmasters.reload import RuleFile
from taskmasters.standby import StandBy

__all__ = ["FilesReport"]

#: Rules and problems that are shown.
_MOST = 1000


class FilesReport:
    """A :class:`task.status.StatusSource`. Read from other threads."""

    def __init__(
        self, standby: StandBy[FilesTaskmaster], file: RuleFile[list[FileRule]], settings: dict[str, object]
    ) -> None:
        self._standby = standby
        self._file = file
        self._settings = settings
        self._since = time.time()

    def statistics(self) -> dict[str, object]:
        """Everything, for people and scripts."""
        master = self._standby.current
        said: dict[str, object] = {
            "app": "files",
            **self._settings,
            "uptime_seconds": round(time.time() - self._since, 3),
            "leads": self._standby.leads,
            "reloads": self._file.reloads,
            "rules_refused": self._file.trouble,
        }
        if master is None:
            return {**said, "trouble": self._standby.trouble}
        watched = list(master.engine.watched.values())[:_MOST]
        return {
            **said,
            "files": master.files,
            "tasks_made": master.made,
            "sent": master.relay.sent,
            "refused": master.relay.refused,
            "publish_errors": master.relay.failed,
            "trouble": master.trouble or self._standby.trouble,
            "problems": list(islice(master.engine.problems(), _MOST)),
            "rules": {
                one.rule.id: {
                    "known": len(one.known),
                    "settling": len(one.settling),
                    "groups_waiting": len(one.waiting),
                }
                for one in watched
            },
        }

    def healthy(self) -> tuple[bool, str]:
        """The process works; a store of files or a bus that is away is no reason to restart it."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether files are seen and tasks get through, or would be if it were not standing by."""
        master = self._standby.current
        trouble = self._standby.trouble or ("" if master is None else master.trouble)
        return not trouble, trouble or "ok"

    def metrics(self) -> Iterator[Metric]:
        """The same for Prometheus."""
        master, label = self._standby.current, {"taskmaster": "files"}
        text = "1 unless another replica is at work."
        yield Metric("taskbus_leads", "gauge", text, int(self._standby.leads), label)
        yield self._file.metric(label)
        yield Metric("taskbus_ready", "gauge", "1 while tasks get through.", int(self.ready()[0]), label)
        if master is None:
            return
        yield Metric("taskbus_files_total", "counter", "Files that were put into tasks.", master.files, label)
        yield Metric("taskbus_tasks_made_total", "counter", "Tasks published.", master.relay.sent, label)
        yield Metric("taskbus_publish_errors_total", "counter", "Failed tries to publish.", master.relay.failed, label)
        for scanner in list(master.scanners)[:_MOST]:
            labels = {**label, "rule": scanner.rule.id}
            yield Metric("taskbus_looks_total", "counter", "Complete looks at the files.", scanner.looks, labels)
            yield Metric("taskbus_looks_failed_total", "counter", "Looks that failed.", scanner.failed, labels)
