"""In a worker's process: counts the tasks that were begun, and tells when the first and the last were.

Needs nothing but Python, for it runs in the environment of the peers. ``PEER_FOLDER`` is where it writes ``first`` and
``last``, ``PEER_COUNT`` the number of tasks.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

__all__ = ["begun"]

_folder, _count = Path(os.environ.get("PEER_FOLDER", ".")), int(os.environ.get("PEER_COUNT", "0"))
_numbers = itertools.count(1)
_late: list[float] = []
_first = 0.0


def begun(sent: float) -> None:
    """A task was begun that was sent at ``sent``, in seconds since 1970."""
    global _first
    _late.append(time.time() - sent)
    number = next(_numbers)
    if number == 1:
        _first = time.perf_counter()
        (_folder / "first").touch()
    if number == _count:
        told = {"seconds": time.perf_counter() - _first, "late": _late}
        (_folder / "last.new").write_text(json.dumps(told))
        (_folder / "last.new").rename(_folder / "last")
