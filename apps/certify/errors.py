"""What keeps a worker from being examined."""

from __future__ import annotations

from bus import TaskbusError

__all__ = ["CertifyError", "OutOfRunsError"]


class CertifyError(TaskbusError):
    """A run did not come to an end, or its state cannot be seen."""


class OutOfRunsError(CertifyError):
    """As many runs were made as were allowed."""
