"""What a deployment does to running tasks."""

from __future__ import annotations

from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, problem, warning
from apps.doctor.setup import Setup
from bus.units import format_duration

__all__ = ["CHECKS"]

#: Seconds a worker needs after its kill time to hand tasks back and to let go of the bus.
_HAND_BACK = 5.0


def _grace(setup: Setup) -> Iterator[Finding]:
    limits, options = setup.limits, setup.options
    if options and limits.grace is not None and limits.grace < options.kill_time + _HAND_BACK:
        fatal = limits.grace <= options.kill_time
        wanted, less = options.kill_time + _HAND_BACK, limits.grace - _HAND_BACK
        change = f"raise the grace period to {format_duration(wanted)} or more"
        if less > 0:
            change += f", or give --kill-time {format_duration(less)}"
        yield (problem if fatal else warning)(
            f"the orchestrator kills {format_duration(limits.grace)} after it asked to stop ({limits.source}), and "
            f"--kill-time is {format_duration(options.kill_time)}",
            "the worker is killed before it has handed back what it was doing: those tasks wait for their leases to "
            f"end, and count as an attempt that crashed; handing back takes up to {format_duration(_HAND_BACK)} more",
            change,
        )


def _kill_time(setup: Setup) -> Iterator[Finding]:
    if setup.options and setup.durations and setup.durations.p99 > setup.options.kill_time:
        p99 = setup.durations.p99
        yield warning(
            f"one task of a hundred takes {format_duration(round(p99, 3))} or longer ({setup.durations.source}), and "
            f"--kill-time is {format_duration(setup.options.kill_time)}",
            "every stop and every deployment cuts such tasks short; they are begun again from their start",
            f"--kill-time {format_duration(max(1, round(p99 * 1.5)))}, and a grace period that is longer",
        )


CHECKS = (
    Check("grace", "Does the orchestrator give the worker the time it takes to stop?", _grace, ("options", "grace")),
    Check("kill-time", "Do running tasks end within the kill time?", _kill_time, ("options", "durations")),
)
