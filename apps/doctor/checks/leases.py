"""How long tasks take, against what the bus and the settings allow."""

from __future__ import annotations

from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, note, problem, unchecked, warning
from apps.doctor.setup import Setup
from bus.units import format_duration

__all__ = ["CHECKS"]

#: A lease that is shorter than this may pass while a machine is busy or a process stands still, in seconds.
_SHORT = 5.0
#: Share of a ceiling from which on the next slow task may hit it.
_NEAR = 0.5


def _ceiling(setup: Setup) -> Iterator[Finding]:
    ceiling = setup.capabilities.lease_ceiling if setup.capabilities else None
    if ceiling is None:
        return
    if setup.durations is None:
        yield unchecked(setup.lacks("durations"))
        return
    longest, text = setup.durations.longest, format_duration(ceiling)
    if longest < _NEAR * ceiling:
        return
    what = (
        f"tasks take up to {format_duration(round(longest, 3))} ({setup.durations.source}), "
        f"and the bus lets no lease last longer than {text}"
    )
    why = "after that time the bus gives the task to another worker, while the first still does it"
    wanted = format_duration(max(60, round(longest * 4 / 60) * 60))
    change = f"start nsqd with --max-msg-timeout={wanted} and give max_lease={wanted} in the URL, or make smaller tasks"
    yield (problem if longest >= ceiling else warning)(what, why, change)


def _short(setup: Setup) -> Iterator[Finding]:
    for lease, place in setup.numbers("lease"):
        if lease < _SHORT:
            yield warning(
                f"the lease is {format_duration(lease)} ({place})",
                "it is extended every third of that; a machine that is busy or a process that stands still for longer "
                "loses it, and the task is done twice",
                "leave the option lease out of the URL, or give lease=30s; a lease that is stored with a group lasts "
                "until the group is deleted",
            )


def _lost(setup: Setup) -> Iterator[Finding]:
    if setup.status and (lost := setup.status.metrics.get("taskbus_lease_lost_total", 0.0)):
        yield warning(
            f"{lost:g} leases were lost since the worker was started",
            "each of these tasks was given to another worker and done twice",
            "give a longer lease, and where the worker's code holds the interpreter --isolation process",
        )


def _no_timeout(setup: Setup) -> Iterator[Finding]:
    if setup.options is None or setup.options.timeout is not None:
        return
    known = setup.durations
    time = format_duration(max(60, round(known.longest * 3))) if known else "a time no task should take"
    yield note(
        "no time limit for a task is set",
        "a task that hangs keeps its slot and its lease for ever, and nobody else is given it",
        f"--timeout {time}",
    )


def _timeout(setup: Setup) -> Iterator[Finding]:
    if setup.options is None or setup.options.timeout is None:
        return
    limit = setup.options.timeout
    if setup.durations is None:
        yield unchecked(setup.lacks("durations"))
    elif setup.durations.longest >= 0.8 * limit:
        longest = setup.durations.longest
        yield warning(
            f"tasks take up to {format_duration(round(longest, 3))} ({setup.durations.source}), and --timeout is "
            f"{format_duration(limit)}",
            "the next one that is a little slower is cut short and ends with error",
            f"--timeout {format_duration(max(1, round(longest * 3)))}",
        )


CHECKS = (
    Check("lease-ceiling", "Do tasks take longer than the bus lets a lease last?", _ceiling, ("capabilities",)),
    Check("lease-short", "Is the lease so short that a busy machine loses it?", _short, ("fact:lease",)),
    Check("lease-lost", "Were leases lost?", _lost, ("status",)),
    Check("timeout-none", "Can a task that hangs hold its slot for ever?", _no_timeout, ("options",)),
    Check("timeout-short", "Is the time limit near what tasks take?", _timeout, ("options",)),
)
