"""All cases."""

from __future__ import annotations

from tests.crash_matrix.case import Case
from tests.crash_matrix.chains import Alerts, OnDone, Retry, Workflow
from tests.crash_matrix.makers import Batch, CatchUp, Cron, Delay, Files, Redrive

__all__ = ["CASES"]

CASES: tuple[type[Case], ...] = (
    Cron,
    CatchUp,
    OnDone,
    Workflow,
    Retry,
    Delay,
    Batch,
    Files,
    Alerts,
    Redrive,
)
