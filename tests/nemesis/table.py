"""The table of trials, for the terminal and for docs/guarantees.md."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from pathlib import Path

from tests.nemesis.trial import Trial

__all__ = ["BEGIN", "END", "row", "table", "write"]

_PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"
#: Between these lines the page is generated.
BEGIN = "<!-- measured: written by `make faults` -->"
END = "<!-- measured: end -->"
_HEAD = (
    "| Bus | Fault | Struck | Tasks | Lost | Done again | Published again | Reported again | Drained after |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def row(trial: Trial) -> str:
    """One line of the table."""
    account = trial.account
    cells = (
        f"`{trial.bus}`",
        " + ".join(trial.faults) if len(trial.faults) < 4 else f"{len(trial.faults)} mixed",
        sum(trial.strikes.values()),
        account.accepted,
        _lost(trial),
        account.duplicates,
        account.published_again,
        account.reported_again,
        "–" if trial.drained is None else f"{trial.drained:.1f} s",
    )
    return "| " + " | ".join(str(cell) or "none" for cell in cells) + " |"


def _lost(trial: Trial) -> str:
    account = trial.account
    if not account.lost:
        return "0"
    where = f"{account.lost_first} first, {account.lost_between} between, {account.lost_last} last"
    reports = f"; {account.lost_reports} of them done" if account.lost_reports else ""
    return f"**{account.lost}** ({where}{reports}){'' if trial.covered else ', not covered'}"


def table(trials: Sequence[Trial]) -> str:
    """All of them, with what they were run on."""
    versions = sorted({trial.version for trial in trials})
    seeds = sorted({trial.seed for trial in trials})
    about = (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, Python {platform.python_version()}, {'; '.join(versions)};"
        f" seed {', '.join(map(str, seeds))}."
    )
    return "\n".join([about, "", _HEAD, *map(row, trials)])


def write(trials: Sequence[Trial], page: Path = _PAGE) -> None:
    """Put the table into the page. Raises RuntimeError if its marks are not there."""
    text = page.read_text()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"{page} lacks the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{head}{BEGIN}\n{table(trials)}\n{END}{tail}")
