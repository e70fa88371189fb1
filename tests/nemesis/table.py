"""The table of trials, for the terminal and for docs/guarantees.md."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import orjson

from bus import Durability
from tests.nemesis.account import Account
from tests.nemesis.trial import Trial

__all__ = ["BEGIN", "END", "HEAD", "keep", "kept", "row", "table", "write"]

_PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"
#: Between these lines the page is generated.
BEGIN = "<!-- measured: written by `make faults` -->"
END = "<!-- measured: end -->"
#: From so many faults on they are only counted.
_MANY = 4
#: The columns of :func:`row`.
HEAD = (
    "| Bus | Fault | Struck | Tasks | Lost | Done again | Published again | Reported again | Drained after |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def row(trial: Trial) -> str:
    """All numbers of one, in a line under :data:`HEAD`."""
    account = trial.account
    cells = (
        f"`{trial.bus}`",
        _faults(trial),
        sum(trial.strikes.values()),
        account.accepted,
        _lost(trial),
        account.duplicates,
        account.published_again,
        account.reported_again,
        _drained(trial),
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _lost(trial: Trial) -> str:
    account = trial.account
    if not account.lost:
        return "0"
    where = f"{account.lost_first} first, {account.lost_between} between, {account.lost_last} last"
    reports = f"; {account.lost_reports} of them done" if account.lost_reports else ""
    return f"**{account.lost}** ({where}{reports}){'' if trial.covered else ', not covered'}"


def table(trials: Sequence[Trial]) -> str:
    """A line for each fault and a column for each bus, with what they were run on."""
    buses = list(dict.fromkeys(trial.bus for trial in trials))
    versions = sorted({trial.version for trial in trials})
    seeds = sorted({trial.seed for trial in trials})
    about = (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, Python {platform.python_version()}, {'; '.join(versions)};"
        f" {os.cpu_count()} cores under a load of {os.getloadavg()[-1]:.0f}; seed {', '.join(map(str, seeds))}."
    )
    head = f"| Fault | {' | '.join(f'`{bus}`' for bus in buses)} |\n|---|{'---|' * len(buses)}"
    cells: dict[str, dict[str, str]] = {}
    for trial in trials:
        cells.setdefault(_faults(trial), {})[trial.bus] = _cell(trial)
    lines = [f"| {fault} | {' | '.join(of.get(bus, '') for bus in buses)} |" for fault, of in cells.items()]
    return "\n".join([about, "", head, *lines])


def keep(trial: Trial, path: Path) -> None:
    """Write it to a file, so that a table can be made of several runs."""
    data = dataclasses.asdict(trial) | {"account": trial.account._asdict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2))


def kept(path: Path) -> Trial:
    """Read one that was kept."""
    data = orjson.loads(path.read_bytes())
    return Trial(
        **data
        | {
            "durability": Durability(data["durability"]),
            "faults": tuple(data["faults"]),
            "account": Account(**data["account"]),
        }
    )


def _faults(trial: Trial) -> str:
    names = " + ".join(trial.faults) or "none"
    return names if len(trial.faults) < _MANY else f"{len(trial.faults)} mixed"


def _cell(trial: Trial) -> str:
    account = trial.account
    lost = f"**{account.lost}**" if account.lost else "0"
    return f"{account.accepted} · {lost} · {account.duplicates} · {_drained(trial)}"


def _drained(trial: Trial) -> str:
    return "–" if trial.drained is None else f"{trial.drained:.1f} s"


def write(trials: Sequence[Trial], page: Path = _PAGE) -> None:
    """Put the table into the page. Raises RuntimeError if its marks are not there."""
    text = page.read_text()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"{page} lacks the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{head}{BEGIN}\n{table(trials)}\n{END}{tail}")
