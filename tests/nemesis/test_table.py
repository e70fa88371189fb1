"""The table says what was lost and where, and is put between its marks in the page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bus import Durability
from tests.nemesis.account import Account
from tests.nemesis.footprint import Footprint, drift, footprint, grown
from tests.nemesis.table import BEGIN, END, keep, kept, row, table, write
from tests.nemesis.trial import Trial


def trial(lost: int = 0, drained: float | None = 1.25) -> Trial:
    """One on NSQ."""
    account = Account(
        accepted=300,
        lost=lost,
        lost_first=0,
        lost_last=0,
        lost_between=lost,
        lost_reports=min(lost, 1),
        invented=0,
        duplicates=2,
        published_again=3,
        reported_again=4,
        poison_done=0,
    )
    strikes = {"broker kill -9": 5}
    return Trial("nsq", "nsqd 1.3.0", Durability.D1, tuple(strikes), 7, strikes, account, drained, False, None)


def test_rows() -> None:
    """Numbers stand in their columns; what was lost says where, and that nobody promised otherwise."""
    assert row(trial()) == "| `nsq` | broker kill -9 | 5 | 300 | 0 | 2 | 3 | 4 | 1.2 s |"
    assert "| **9** (0 first, 9 between, 0 last; 1 of them done), not covered | 2 |" in row(trial(9, None))
    assert row(trial(9, None)).endswith("| – |")


def test_the_table_has_a_line_for_each_fault_and_a_column_for_each_bus() -> None:
    """What was lost stands out, and what was not run is empty."""
    other = trial(9, None)
    other.bus, other.faults = "kafka", ()
    lines = table([trial(), other]).splitlines()
    assert "nsqd 1.3.0;" in lines[0]
    assert lines[0].endswith("; seed 7.")
    assert lines[2:] == [
        "| Fault | `nsq` | `kafka` |",
        "|---|---|---|",
        "| broker kill -9 | 300 · 0 · 2 · 1.2 s |  |",
        "| none |  | 300 · **9** · 2 · – |",
    ]


def test_a_trial_is_kept(tmp_path: Path) -> None:
    """It is read as it was written."""
    keep(trial(9, None), tmp_path / "results" / "one.json")
    assert kept(tmp_path / "results" / "one.json") == trial(9, None)


def test_it_is_written_between_the_marks(tmp_path: Path) -> None:
    """Written twice it is there once, and what stands around it stays."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write([trial()], page)
    write([trial()], page)
    assert page.read_text() == f"before\n{BEGIN}\n{table([trial()])}\n{END}\nafter\n"


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    """It is left as it is."""
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(RuntimeError, match="lacks the lines"):
        write([trial()], page)
    assert page.read_text() == "text"


def test_growth_is_told() -> None:
    """More than a tenth more memory is told, and files and threads beyond a few; processes that ended are not."""
    before = [Footprint("worker", 1, 1000, 20, 5), Footprint("worker", 2, 1000, 20, 5)]
    assert grown(before, [Footprint("worker", 1, 1100, 23, 8)]) == []
    assert grown(before, [Footprint("worker", 1, 1101, 24, 9), Footprint("worker", 3, 9999, 99, 99)]) == [
        "memory of the worker (1) grew from 1000 to 1101",
        "files of the worker (1) grew from 20 to 24",
        "threads of the worker (1) grew from 5 to 9",
    ]


def test_drift_is_what_stays() -> None:
    """What a process takes at first, and what it gives back at times, is none; what rises with the time is."""

    def samples(*memory: int) -> list[list[Footprint]]:
        return [[Footprint("worker", 1, each, 20, 5)] for each in memory]

    assert drift(samples(10, 1000, 1500, 1000, 1090, 2000, 1700, 1050)) == []
    assert drift(samples(10, 1000, 1500, 1000, 1090, 2000, 1700, 1150)) == [
        "memory of the worker (1) grew from 1000 to 1150"
    ]
    assert drift([*samples(1000, 1000, 1000), []]) == []


def test_footprint_of_a_process() -> None:
    """This process has memory, files and threads; one that is not there has none."""
    own = footprint("me", os.getpid())
    assert own is not None
    assert own.memory > 1_000_000
    assert own.files > 2
    assert own.threads > 0
    assert footprint("nobody", 2**22 + 1) is None
