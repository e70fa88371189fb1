"""The account tells what was lost, where, and what was done again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.nemesis.account import settle
from tests.nemesis.ledger import Event, Ledger, Pen


def write(folder: Path, **events: Sequence[str]) -> Ledger:
    """A ledger with these."""
    for event, ids in events.items():
        Pen(folder, Event(event)).write(ids)
    return Ledger(folder)


def test_all_is_well(tmp_path: Path) -> None:
    """What is done once, fails once as asked, or ends in the dead letters is neither lost nor a duplicate."""
    sent = ["1", "2", "poison-1"]
    ledger = write(
        tmp_path,
        attempted=sent,
        accepted=sent,
        executed=["1", "2", "2"],
        failed=["2"],
        done=["1", "2"],
        dead=["poison-1"],
    )
    assert settle(ledger) == (3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_where_tasks_were_lost(tmp_path: Path) -> None:
    """Lost are one before the first that came, one between and two after the last; one of them had been done."""
    sent = ["a", "b", "c", "d", "e", "f"]
    account = settle(write(tmp_path, attempted=sent, accepted=sent, executed=["b", "c", "d"], done=["b", "d"]))
    assert (account.lost, account.lost_first, account.lost_between, account.lost_last) == (4, 1, 1, 2)
    assert account.lost_reports == 1


def test_nothing_came(tmp_path: Path) -> None:
    """When nothing came all is lost, from the first on."""
    account = settle(write(tmp_path, attempted=["a", "b"], accepted=["a", "b"]))
    assert (account.lost, account.lost_first) == (2, 2)


def test_what_comes_again(tmp_path: Path) -> None:
    """Executions, publishes and reports beyond the first are counted, and an error is an execution allowed."""
    account = settle(
        write(
            tmp_path,
            attempted=["a", "a", "b"],
            accepted=["a", "b"],
            executed=["a", "a", "a", "b", "b"],
            failed=["a"],
            done=["a", "a", "b"],
        )
    )
    assert (account.duplicates, account.published_again, account.reported_again) == (2, 1, 1)


def test_copies(tmp_path: Path) -> None:
    """Each copy is to be begun: one that is not is lost, and one that is is no duplicate."""
    sent = ["a", "b", "c"]
    events = {"attempted": sent, "accepted": sent, "copied": ["a", "b", "b"], "done": ["a", "a", "b", "b", "b", "c"]}
    ledger = write(tmp_path, **events, executed=["a", "a", "b", "b", "c", "c"])
    assert ledger.pending() == {"b"}
    account = settle(ledger)
    assert (account.lost, account.duplicates, account.reported_again, account.published_again) == (1, 1, 0, 0)


def test_what_must_not_come(tmp_path: Path) -> None:
    """What nobody sent is told, and so is poison that was done."""
    account = settle(write(tmp_path, attempted=["a", "poison-1"], executed=["poison-1"], done=["b"]))
    assert (account.invented, account.poison_done) == (1, 1)


def test_unconfirmed_is_not_lost(tmp_path: Path) -> None:
    """Who did not get a confirmation was promised nothing."""
    assert settle(write(tmp_path, attempted=["a"])).lost == 0


def test_a_line_half_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """The ledger may be read while others write it."""
    (tmp_path / "done.1").write_bytes(b"a 1 1.0\nb 1")
    ledger = Ledger(tmp_path)
    assert list(ledger.count(Event.DONE)) == ["a"]
    with (tmp_path / "done.1").open("ab") as file:
        file.write(b" 1.0\n")
    assert list(ledger.count(Event.DONE)) == ["a", "b"]
