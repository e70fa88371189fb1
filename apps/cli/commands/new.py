"""``taskbus new``: starter folders."""

from __future__ import annotations

from apps.cli.lazy import Entry, LazyGroup

__all__ = ["command"]

command = LazyGroup(
    entries={"worker": Entry("apps.cli.commands.new_worker:command", "A worker with its test and an example rule.")},
    kind="starter",
    help="Write a starter folder to begin from.",
)
