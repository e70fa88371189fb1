"""Buses that are files."""

from __future__ import annotations

from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, note, problem, warning
from apps.doctor.setup import Setup
from bus.mounts import NETWORK, VOLATILE

__all__ = ["CHECKS"]

_MIB = 1024**2
#: MiB free from which on downwards it is worth a word, and dangerous.
_LITTLE, _NOTHING = 1024, 64


def _system(setup: Setup) -> Iterator[Finding]:
    for fact in setup.all("file.system"):
        if fact.value in NETWORK:
            yield problem(
                f"{fact.place} is on a network file system ({fact.value})",
                "locks and shared memory do not work there as they do on a local disk: two workers take the same task, "
                "or the file is damaged",
                "put it on a local disk; for several machines use nats, kafka or nsq",
            )
        elif fact.value in VOLATILE:
            yield warning(
                f"{fact.place} is in memory ({fact.value})",
                "a restart of the machine or the container loses all tasks",
                "put it on a disk that stays",
            )


def _sync(setup: Setup) -> Iterator[Finding]:
    slack = any(fact.value == "normal" for fact in setup.all("option.synchronous"))
    if slack or any(fact.value is False for fact in setup.all("option.sync")):
        option = "synchronous=normal" if slack else "sync=false"
        yield note(
            f"the URL says {option}",
            "a power loss loses the last confirmed tasks",
            f"leave {option} out, where that matters more than speed",
        )
    for fact in setup.all("file.journal"):
        if fact.value in ("off", "memory"):
            yield problem(
                f"{fact.place} has the journal mode {fact.value}",
                "a crash in the midst of a change damages the file",
                "let no other program set it: `pragma journal_mode = wal`",
            )


def _room(setup: Setup) -> Iterator[Finding]:
    for free, place in setup.numbers("file.free"):
        if free < _LITTLE * _MIB:
            yield (problem if free < _NOTHING * _MIB else warning)(
                f"{free / _MIB:.0f} MiB are free on the disk of {place}",
                "when it is full nothing can be published or settled, until there is room",
                "make room, or take another disk",
            )


CHECKS = (
    Check("file-system", "Is the bus on a disk with real locks?", _system, ("fact:file.system",), ("sqlite", "file")),
    Check("file-sync", "Is what was confirmed on the disk?", _sync, ("fact:file.exists",), ("sqlite", "file")),
    Check("disk-room", "Is there room on the disk?", _room, ("fact:file.free",), ("sqlite", "file")),
)
