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
        "File that remembers what was sent; default: RULES with .state.db at its end; - for none.",
        metavar="PATH",
    )
    kill_time: float = duration(10.0, "On shutdown, time to finish what is being sent.")
