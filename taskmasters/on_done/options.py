"""The settings of the on-done taskmaster."""

from __future__ import annotations

from dataclasses import dataclass

from task.options import AppOptions
from task.setting import duration, setting

__all__ = ["OnDoneOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDoneOptions(AppOptions):
    """What can be set beside the rules."""

    in_: str | None = setting(None, "Read done tasks from a file, - (stdin) or another bus.", metavar="PATH|-|URL")
    out: str | None = setting(
        None, "Write the tasks made to a file, - (stdout) or another bus's URL.", metavar="PATH|-|URL"
    )
    topic: str = setting("done", "Topic of the done tasks.", metavar="NAME")
    group: str = setting("on-done", "Group whose instances share the done tasks.", metavar="NAME")
    dead_topic: str | None = setting(None, "Topic for dead letters; by default TOPIC.dead.", metavar="NAME")
    state: str | None = setting(
        None,
        "What remembers done tasks that wait for others: a file, by default RULES with .state.db at its end, or a "
        "database that instances share, as postgresql://USER@HOST/NAME. Only rules with `all`, and --dedupe, need it.",
        metavar="PATH|URL",
    )
    dedupe: float = duration(0.0, "A done task that comes again within this time makes nothing; 0 = it is not known.")
    kill_time: float = duration(10.0, "On shutdown, time to finish what was received.")
