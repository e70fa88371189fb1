"""The settings of the workflow taskmaster."""

from __future__ import annotations

from dataclasses import dataclass

from task.options import AppOptions
from task.setting import duration, setting

__all__ = ["DEFAULT_STATE", "WorkflowOptions"]

#: Where runs are kept unless told otherwise: a SQLite file in the current folder.
DEFAULT_STATE = "workflow.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowOptions(AppOptions):
    """What can be set beside the workflow files."""

    state: str = setting(
        DEFAULT_STATE, "Where runs are kept: a SQLite file, or a postgresql:// or mysql:// URL.", metavar="PATH|URL"
    )
    topic: str = setting("done", "Topic of the done tasks; the end of a run is told there too.", metavar="NAME")
    requests: str = setting("requests", "Topic of the requests for runs; - for none.", metavar="NAME")
    group: str = setting("workflow", "Group whose instances share done tasks and requests.", metavar="NAME")
    dead_topic: str | None = setting(None, "Topic for dead letters; by default TOPIC.dead.", metavar="NAME")
    keep: float = duration(30 * 86400.0, "How long runs that ended are kept; 0 for ever.")
    kill_time: float = duration(10.0, "On shutdown, time to finish what was received.")
