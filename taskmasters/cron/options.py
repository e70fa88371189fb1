"""The settings of the cron taskmaster."""

from __future__ import annotations

from dataclasses import dataclass

from task.options import AppOptions
from task.setting import duration, setting

__all__ = ["CronOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CronOptions(AppOptions):
    """What can be set beside the rules."""

    state: str | None = setting(
        None,
        "What remembers what was sent: a file, by default RULES with .state.db at its end; a database or a NATS "
        "bucket that replicas share, as postgresql://USER@HOST/NAME or nats://HOST/BUCKET; - for nothing.",
        metavar="PATH|URL|-",
    )
    name: str | None = setting(
        None, "With a shared state: what the replicas are called together; default: name of RULES.", metavar="NAME"
    )
    lease: float = duration(10.0, "With a shared state: a replica silent for so long is replaced.")
    kill_time: float = duration(10.0, "On shutdown, time to finish what is being sent.")
