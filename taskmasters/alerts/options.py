"""The settings of the alerts taskmaster."""

from __future__ import annotations

from dataclasses import dataclass

from task.options import AppOptions
from task.setting import duration, setting

__all__ = ["AlertsOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsOptions(AppOptions):
    """What can be set beside the rules."""

    state: str = setting(
        "alerts.db", "Where alerts are kept: a SQLite file, or a postgresql:// or mysql:// URL.", metavar="PATH|URL"
    )
    topic: str = setting("done", "Topic of the done tasks.", metavar="NAME")
    failed_topic: str = setting("retry-failed", "Topic of the tasks given up; - for none.", metavar="NAME")
    group: str = setting("alerts", "Group of this taskmaster on every topic it receives from.", metavar="NAME")
    dead_topic: str = setting("alerts.dead", "Topic for what cannot be read.", metavar="NAME")
    lease: float = duration(10.0, "With a --state that is a URL: a replica silent for so long is replaced.")
    keep: float = duration(7 * 86400.0, "How long it is remembered what was told and done.")
    kill_time: float = duration(10.0, "On shutdown, time to store what was received.")
