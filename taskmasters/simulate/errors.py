"""What ends a simulation early."""

from __future__ import annotations

from task.errors import TaskError

__all__ = ["SimulationError"]


class SimulationError(TaskError):
    """The simulation cannot go on: it would have no end, or what a result says has no value."""
