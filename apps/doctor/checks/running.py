"""What a running worker tells of itself, and the limits of its process."""

from __future__ import annotations

from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, problem, unchecked, warning
from apps.doctor.setup import Setup

__all__ = ["CHECKS"]

#: Shares of a limit.
_NEAR, _FULL = 0.5, 0.8
#: A limit of open files below this is met by connections and pipes of a few dozen tasks.
_FEW_FILES = 1024
_MIB = 1024**2


def _ready(setup: Setup) -> Iterator[Finding]:
    if setup.status and setup.status.not_ready:
        yield problem(
            f"the worker is not ready: {setup.status.not_ready}",
            "it does no tasks now",
            "look at its log, and at the bus; a worker that was just started, or is stopping, is not ready either",
        )


def _stalls(setup: Setup) -> Iterator[Finding]:
    if setup.status and (stalls := setup.status.metrics.get("taskbus_stalls_total", 0.0)):
        yield warning(
            f"the worker reconnected {stalls:g} times because tasks were ready and none came",
            "until it noticed, it did nothing",
            "look for connections that go silent between it and the bus: proxies, firewalls, idle time limits",
        )


def _errors(setup: Setup) -> Iterator[Finding]:
    if setup.status and (errors := setup.status.metrics.get("taskbus_publish_errors_total", 0.0)):
        yield warning(
            f"publishing or settling failed {errors:g} times",
            "each was tried again, and a result may have been published twice",
            "look at the worker's log for settle-failed, and at the bus",
        )


def _files(setup: Setup) -> Iterator[Finding]:
    metrics = setup.status.metrics if setup.status else {}
    used, most = metrics.get("process_open_fds"), metrics.get("process_max_fds") or setup.limits.files
    if most is None:
        yield unchecked("no limit of open files is known: give --status, or --unit FILE with LimitNOFILE")
        return
    change = "raise the limit: LimitNOFILE=65536 in a systemd unit, ulimit -n 65536 in a shell"
    why = "when it is met the worker can neither reconnect nor start the processes of tasks"
    if used is not None and used >= _NEAR * most:
        yield (problem if used >= _FULL * most else warning)(f"{used:g} of {most:g} files are open", why, change)
    elif most < _FEW_FILES:
        yield warning(f"no more than {most:g} files may be open", why, change)


def _memory(setup: Setup) -> Iterator[Finding]:
    most = setup.limits.memory
    used = setup.status.metrics.get("process_resident_memory_bytes") if setup.status else None
    if most is None or used is None:
        return
    # With several processes each has its own line, and what is told without a number is the parent's.
    used += setup.status.metrics.get("taskbus_process_resident_memory_bytes", 0.0) if setup.status else 0.0
    if used >= _NEAR * most:
        options = setup.options
        slots = (
            f"; --max-in-progress is {options.max_in_progress} and --processes {options.processes}" if options else ""
        )
        yield (problem if used >= _FULL * most else warning)(
            f"the worker occupies {used / _MIB:.0f} of the {most / _MIB:.0f} MiB it may have ({setup.limits.source})",
            f"when that is met it is killed in the midst of all its tasks{slots}",
            "raise the limit, or lower --max-in-progress or --processes; --lifetime N starts a leaking worker anew",
        )


CHECKS = (
    Check("ready", "Does the worker do tasks?", _ready, ("status",)),
    Check("stalls", "Did it have to reconnect because none came?", _stalls, ("status",)),
    Check("settle-errors", "Do results get through to the bus?", _errors, ("status",)),
    Check("open-files", "Is the limit of open files near?", _files),
    Check("memory", "Is the limit of memory near?", _memory, ("status", "memory")),
)
