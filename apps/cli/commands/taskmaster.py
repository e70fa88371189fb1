"""``taskbus taskmaster``: the applications that make tasks."""

from __future__ import annotations

from apps.cli.lazy import Entry, LazyGroup
from taskmasters.commands import commands

__all__ = ["command"]

command = LazyGroup(
    entries={name: Entry(target) for name, target in commands.items()},
    kind="taskmaster",
    help="Run an application that makes tasks.",
)
