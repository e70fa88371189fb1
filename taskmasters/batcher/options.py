"""The settings of the batcher taskmaster."""

from __future__ import annotations

from dataclasses import dataclass

from task.options import AppOptions
from task.setting import duration, setting

__all__ = ["BatcherOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherOptions(AppOptions):
    """What can be set."""

    state: str = setting(
        "batcher.db", "Where requests are kept: a SQLite file, or a postgresql:// or mysql:// URL.", metavar="PATH|URL"
    )
    topic: str = setting("batcher", "Topic of the requests.", metavar="NAME")
    group: str = setting("batcher", "Group whose instances share them.", metavar="NAME")
    done_topic: str = setting("done", "Topic that is told how a request ended; - for none.", metavar="NAME")
    dead_topic: str | None = setting(None, "Topic for dead letters; by default TOPIC.dead.", metavar="NAME")
    rules: str | None = setting(None, "File of cron rules that requests may name.", metavar="PATH")
    workflows: str | None = setting(None, "Workflow file, or folder of them, that requests may name.", metavar="PATH")
    rows_folder: str | None = setting(None, "Folder of the files of rows that requests may name.", metavar="PATH")
    keep: float = duration(7 * 86400.0, "How long a request that has ended is known, should it come again.")
    kill_time: float = duration(10.0, "On shutdown, time to store what was received.")
