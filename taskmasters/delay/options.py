"""The settings of the delay taskmaster."""

from __future__ import annotations

from dataclasses import dataclass

from task.delaying import DELAY_TOPIC
from task.options import AppOptions
from task.setting import duration, setting

__all__ = ["DelayOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayOptions(AppOptions):
    """What can be set."""

    state: str = setting(
        "delay.db", "Where tasks wait: a SQLite file, or a postgresql:// or mysql:// URL.", metavar="PATH|URL"
    )
    topic: str = setting(DELAY_TOPIC, "Topic of the tasks to be sent later.", metavar="NAME")
    group: str = setting("delay", "Group whose instances share them.", metavar="NAME")
    dead_topic: str | None = setting(None, "Topic for dead letters; by default TOPIC.dead.", metavar="NAME")
    kill_time: float = duration(10.0, "On shutdown, time to store what was received.")
