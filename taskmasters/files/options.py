"""The settings of the files taskmaster."""

from __future__ import annotations

from dataclasses import dataclass

from task.options import AppOptions
from task.setting import duration, setting

__all__ = ["FilesOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesOptions(AppOptions):
    """What can be set beside the rules."""

    state: str | None = setting(
        None,
        "Where it is kept what was sent: a SQLite file, or a postgresql:// or mysql:// URL; default: RULES with "
        ".state.db at its end.",
        metavar="PATH|URL",
    )
    lease: float = duration(10.0, "With a --state that is a URL: a replica silent for so long is replaced.")
    keep: float = duration(30 * 86400.0, "How long a file that is gone is remembered.")
    kill_time: float = duration(10.0, "On shutdown, time to finish what is being sent.")
