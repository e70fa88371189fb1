"""Waiting for what happens in another thread, task or process, without sleeping longer than it takes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["await_until", "catches", "is_running", "last_elected", "wait_until"]

_TICK = 0.005


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once ``condition()`` is true; fail if it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(_TICK)


async def await_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """The same on an event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(_TICK)


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal: without one it would be killed by it."""
    caught = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def last_elected(logs: Mapping[int, Path]) -> int | None:
    """Which of these replicas was elected last, by their logs in JSON; None if none was."""
    found = {
        json.loads(line)["term"]: number
        for number, log in logs.items()
        for line in log.read_text().splitlines()
        if '"event":"leader"' in line
    }
    return found[max(found)] if found else None
