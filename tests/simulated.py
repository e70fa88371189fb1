"""``taskbus simulate`` in the hands of a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from apps.cli.errors import run
from apps.cli.group import cli

__all__ = ["Simulated", "simulated", "write"]


class Simulated:
    """What came of it. ``at`` is without its milliseconds where these are none."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def story(self) -> list[tuple[str, str]]:
        """Moment and topic of each."""
        return [(line["at"].replace(".000Z", "Z"), line["topic"]) for line in self.lines]

    def moments(self, topic: str) -> list[str]:
        """The moments of one topic."""
        return [at for at, name in self.story if name == topic]


def write(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Write rule files, given as name → text; their paths."""
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return [str(folder / f"{name}.toml") for name in files if name != "results"]


def simulated(
    folder: Path, capfd: pytest.CaptureFixture[str], files: Mapping[str, str], *args: str, json: bool = True
) -> Simulated:
    """Simulate files; one called ``results`` are those."""
    paths = write(folder, files)
    results = ["--results", str(folder / "results.toml")] if "results" in files else []
    code = run(cli, ["simulate", *paths, *results, *args, *(["--json"] if json else [])])
    return Simulated(code, *capfd.readouterr())
