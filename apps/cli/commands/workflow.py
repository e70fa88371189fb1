"""``taskbus workflow``: the runs of the workflow taskmaster."""

from __future__ import annotations

from apps.cli.lazy import Entry, LazyGroup
from taskmasters.commands import workflow_commands

__all__ = ["command"]

command = LazyGroup(
    entries={name: Entry(target) for name, target in workflow_commands.items()},
    help="Look at the runs of the workflow taskmaster, and cancel them.",
)
