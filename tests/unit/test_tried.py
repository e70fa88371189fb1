"""Notes of attempts that may end their process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bus import Delivery
from task import tried as module
from task.times import parse_time
from task.tried import Tried, tidy_tried

#: Takes an attempt and is killed.
_INSTANCE = """
import os, signal, sys
from pathlib import Path
from bus import Delivery
from task.tried import Tried

Tried(Path(sys.argv[1]), "scope").note(Delivery(b"{}", "m"), int(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_attempts_of_killed_processes_are_told(tmp_path: Path) -> None:
    """Of each that was noted there is the number, the moment, the host and the process."""
    pids = []
    for attempt in (2, 3):
        process = subprocess.Popen([sys.executable, "-c", _INSTANCE, str(tmp_path), str(attempt)])
        assert process.wait(30) == -9
        pids.append(process.pid)
    found = Tried(tmp_path, "scope").tries(Delivery(b"{}", "m"))
    assert [each["attempt"] for each in found] == [2, 3]
    assert [each["pid"] for each in found] == pids
    assert {each["host"] for each in found} == {platform.node()}
    assert parse_time(str(found[0]["taken"])) <= parse_time(str(found[1]["taken"]))


def test_only_the_same_message_is_told_of(tmp_path: Path) -> None:
    """Another id, another body, another scope and an id that ends alike have notes of their own."""
    ours, others = Tried(tmp_path, "scope"), Tried(tmp_path, "other")
    ours.note(Delivery(b"1", "m"), 2)
    ours.note(Delivery(b"2", "m"), 3)
    ours.note(Delivery(b"1", 'a"m'), 4)
    ours.note(Delivery(b"1", '\n"m" x'), 5)
    others.note(Delivery(b"1", "m"), 6)
    assert [each["attempt"] for each in ours.tries(Delivery(b"1", "m"))] == [2]
    assert [each["attempt"] for each in ours.tries(Delivery(b"1", '\n"m" x'))] == [5]
    assert ours.tries(Delivery(b"1", "never")) == []
    ours.close()
    others.close()
    others.close()


def test_what_is_torn_or_foreign_is_left_out(tmp_path: Path) -> None:
    """A line cut short, one with other fields and what is no text hide none of the others."""
    ours = Tried(tmp_path, "scope")
    delivery = Delivery(b"1", "m")
    ours.note(delivery, 2)
    ours.close()
    path = tmp_path / "scope.tried"
    (line,) = path.read_bytes().splitlines(keepends=True)
    head = line[: line.index(b"[")]
    path.write_bytes(b"\xff\xfe\n" + head + b'["3"]\n' + head + b"{}\n" + line[:-5] + b"\n" + line + line[:-9])
    assert [each["attempt"] for each in ours.tries(delivery)] == [2]


def test_notes_take_little_room_and_the_latest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full file is put aside, and the one put aside before is gone, though several instances write."""
    monkeypatch.setattr(module, "_LARGEST", 2000)
    several = [Tried(tmp_path, "scope") for _ in range(2)]
    for number in range(400):
        several[number % 2].note(Delivery(b"1", f"m{number}"), 2)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * 2200
    reader = Tried(tmp_path, "scope")
    assert reader.tries(Delivery(b"1", "m0")) == []
    assert all(reader.tries(Delivery(b"1", f"m{number}")) for number in range(390, 400))
    for each in several:
        each.close()


def test_a_note_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    """Neither a missing folder nor an id that is no text nor a link in the way keeps a task from being tried."""
    missing = Tried(tmp_path / "missing", "scope")
    missing.note(Delivery(b"1", "m"), 2)
    assert missing.tries(Delivery(b"1", "m")) == []
    ours = Tried(tmp_path, "scope")
    ours.note(Delivery(b"1", "\ud800"), 2)
    assert ours.tries(Delivery(b"1", "\ud800")) == []
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "scope.tried").symlink_to(tmp_path / "target")
    ours.note(Delivery(b"1", "m"), 2)
    assert (tmp_path / "target").read_bytes() == b""


def test_old_notes_are_deleted(tmp_path: Path) -> None:
    """Those last added to before the moment go, the others stay."""
    for scope, moment in (("old", 1000.0), ("new", 3000.0)):
        notes = Tried(tmp_path, scope)
        notes.note(Delivery(b"1", "m"), 2)
        notes.close()
        os.utime(tmp_path / f"{scope}.tried", (moment, moment))
    tidy_tried(tmp_path, 2000.0)
    assert [path.name for path in tmp_path.iterdir()] == ["new.tried"]
