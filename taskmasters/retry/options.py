"""The settings of the retry taskmaster."""

from __future__ import annotations

from dataclasses import dataclass

from task.options import AppOptions
from task.setting import duration, setting

__all__ = ["RetryOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions(AppOptions):
    """What can be set beside the rules."""

    state: str = setting(
        "retry.db", "Where tasks wait: a SQLite file, or a postgresql:// or mysql:// URL.", metavar="PATH|URL"
    )
    in_: str | None = setting(None, "With --dry-run: read done tasks from a file or - (stdin).", metavar="PATH|-")
    topic: str = setting("done", "Topic of the done tasks.", metavar="NAME")
    group: str = setting("retry", "Group whose instances share the done tasks.", metavar="NAME")
    dead_topic: str | None = setting(
        None, "Topic for dead letters of what is no done task; by default TOPIC.dead.", metavar="NAME"
    )
    failed_topic: str = setting("retry-failed", "Topic told of each task given up; - for none.", metavar="NAME")
    keep: float = duration(7 * 86400.0, "How long a task is remembered after its last retry.")
    kill_time: float = duration(10.0, "On shutdown, time to store what was received.")
