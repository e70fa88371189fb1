"""The time that all processes agree on which share the directory of a file bus."""

from __future__ import annotations

import logging
import os

from bus.file.layout import locked
from bus.steady import SteadyClock, start_of_time

__all__ = ["agree"]

_log = logging.getLogger("taskbus.bus")
#: More than all starts of a machine need.
_MOST = 1024 * 1024


def agree(path: str, clock: SteadyClock) -> None:
    """Take the time from whoever was first since the machine was started, or be the first."""
    start = start_of_time()
    if start is None:
        return
    try:
        found = _ask(path, start)
        clock.ahead = _decide(path, start, clock.present()) if found is None else found
    except OSError as error:
        # As likely as not a full disk, on which what is there may yet be done.
        _log.warning("cannot keep %s: %s; until this ends leases go by the clock of the machine", path, error.strerror)


def _ask(path: str, start: str) -> float | None:
    try:
        with locked(path, os.O_RDONLY, shared=True) as fd:
            return _find(fd, start)
    except FileNotFoundError:
        return None


def _decide(path: str, start: str, ahead: float) -> float:
    with locked(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as fd:
        found = _find(fd, start)
        if found is not None:
            return found
        # The line before may have been torn.
        os.write(fd, f"\n{start} {ahead!r}\n".encode())
        found = _find(fd, start)
        return ahead if found is None else found


def _find(fd: int, start: str) -> float | None:
    for line in os.pread(fd, _MOST, 0).split(b"\n")[:-1]:
        name, _, text = line.partition(b" ")
        if name == start.encode():
            try:
                return float(text)
            except ValueError:
                continue
    return None
