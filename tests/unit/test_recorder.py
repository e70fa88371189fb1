"""Outcomes that a killed instance recorded."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bus import Delivery
from task import Outcome, Result, Task, complete, error, reject, retry_later
from task import recorder as module
from task.assignment import Assignment
from task.context import Context
from task.recorder import Recorder, open_recorder

BODY = b'{"type":"t","task":"v"}'
#: Records what the lines of its input say, tells that it has, and waits to be killed.
INSTANCE = """
import sys, time
from pathlib import Path
from tests.unit.test_recorder import attempt
from task import complete
from task.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), sys.argv[2])
for line in sys.stdin:
    id, number, msg = line.split()
    recorder.record(attempt(complete(msg, k="w"), id=id, number=int(number)))
print("recorded", flush=True)
time.sleep(600)
"""


def attempt(outcome: Outcome | None = None, *, id: str = "1", number: int = 1, body: bytes = BODY) -> Assignment:
    """One attempt at a task, ended with ``outcome``."""
    made = Assignment(Delivery(body, id, number), Task("t", "v"), Context(Task("t", "v"), number))
    made.outcome = outcome
    made.started, made.completed = "2024-01-01T00:00:00.000Z", "2024-01-01T00:00:01.000Z"
    made.ended = time.monotonic()
    return made


def recall(recorder: Recorder, **which: Any) -> Assignment | None:
    """What ``recorder`` knows of a message delivered again."""
    again = attempt(**{"number": 2, **which})
    recorder._looked = 0.0  # as if the last look was long ago
    return again if recorder.recall(again.delivery, again) else None


def leave(folder: Path, *outcomes: Outcome, scope: str = "scope", **which: Any) -> Path:
    """The records of an instance that has died: its lock is gone, its file is not."""
    recorder = Recorder(folder, scope)
    for outcome in outcomes:
        recorder.record(attempt(outcome, **which))
    recorder.close(forget=False)
    return recorder._path


def start(folder: Path, lines: str, scope: str = "scope") -> subprocess.Popen[str]:
    """An instance that has recorded ``lines`` and lives."""
    process = subprocess.Popen(
        [sys.executable, "-c", INSTANCE, str(folder), scope],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(lines)
    process.stdin.close()
    assert process.stdout.readline() == "recorded\n"
    process.stdout.close()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_what_a_killed_process_recorded_is_recalled(tmp_path: Path) -> None:
    """kill -9 keeps what was recorded, with times and meta; while the process lives nobody else reads it."""
    process = start(tmp_path, "1 1 first\n2 1 second\n")
    mine = Recorder(tmp_path, "scope")
    try:
        assert recall(mine) is None
    finally:
        kill(process)

    found = recall(mine)

    assert found is not None
    assert found.outcome == Outcome(Result.COMPLETE, "first", {"k": "w"})
    assert (found.started, found.completed) == ("2024-01-01T00:00:00.000Z", "2024-01-01T00:00:01.000Z")
    assert recall(mine, id="2") is not None
    mine.close()


@pytest.mark.parametrize(
    ("which", "known"),
    [
        ({}, True),
        ({"number": 3}, True),
        ({"number": 1}, False),
        ({"id": "2"}, False),
        ({"body": BODY + b" "}, False),
    ],
)
def test_only_the_same_message_is_recalled(tmp_path: Path, which: dict[str, Any], known: bool) -> None:
    """The same id and body at a later attempt, and nothing else."""
    leave(tmp_path, complete())
    mine = Recorder(tmp_path, "scope")

    assert (recall(mine, **which) is not None) is known
    mine.close()


def test_outcomes_of_the_same_moment_are_kept_apart(tmp_path: Path) -> None:
    """Tasks that begin and end in one millisecond each have their own outcome, message and meta."""
    outcomes = [
        complete(),
        complete(),
        complete("a"),
        complete(),
        error("a"),
        complete(k="1"),
        complete(k="2"),
        reject("a"),
    ]
    recorder = Recorder(tmp_path, "scope")
    for number, outcome in enumerate(outcomes):
        recorder.record(attempt(outcome, id=str(number)))
    recorder.close(forget=False)
    mine = Recorder(tmp_path, "scope")

    found = [recall(mine, id=str(number)) for number in range(len(outcomes))]

    assert [each and each.outcome for each in found] == outcomes
    mine.close()


def test_an_outcome_of_a_later_attempt_is_not_recalled(tmp_path: Path) -> None:
    """What was recorded at attempt 3 says nothing about a delivery that counts as the third."""
    leave(tmp_path, complete(), number=3)
    mine = Recorder(tmp_path, "scope")

    assert recall(mine, number=3) is None
    mine.close()


@pytest.mark.parametrize(
    "other", [("x", "t", "g", "e"), ("b", "x", "g", "e"), ("b", "t", "x", "e"), ("b", "t", "g", "x")]
)
def test_another_bus_topic_group_or_epoch_is_another_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: tuple[str, str, str, str]
) -> None:
    """Records count only where the message ids come from the same store."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    first = open_recorder("b", "t", "g", "e")
    assert first is not None
    first.record(attempt(complete()))
    first.close(forget=False)
    same, another = open_recorder("b", "t", "g", "e"), open_recorder(*other)
    assert same is not None
    assert another is not None

    assert recall(another) is None
    assert recall(same) is not None
    same.close()
    another.close()


def test_a_record_answers_once(tmp_path: Path) -> None:
    """A recalled outcome is settled or, with this instance, dies; it is not kept in memory."""
    leave(tmp_path, complete())
    mine = Recorder(tmp_path, "scope")

    assert recall(mine) is not None
    assert recall(mine) is None
    mine.close()


@pytest.mark.parametrize("outcome", [None, retry_later(1.0)])
def test_what_is_not_final_is_not_recorded(tmp_path: Path, outcome: Outcome | None) -> None:
    """An attempt without an outcome, or one to be repeated, leaves nothing."""
    recorder = Recorder(tmp_path, "scope")
    recorder.record(attempt(outcome))
    recorder.close(forget=False)
    mine = Recorder(tmp_path, "scope")

    assert recall(mine) is None
    mine.close()


@pytest.mark.parametrize("outcome", [error("no", a="1"), reject("bad value"), complete("ü \u2028 \0")])
def test_every_final_outcome_comes_back_as_it_was(tmp_path: Path, outcome: Outcome) -> None:
    """Result, message, meta and rejection survive."""
    leave(tmp_path, outcome)
    mine = Recorder(tmp_path, "scope")
    found = recall(mine)

    assert found is not None
    assert found.outcome == outcome
    mine.close()


def test_an_outcome_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    """A lone surrogate or a huge message costs a duplicate, not the application."""
    leave(tmp_path, complete("\ud800"), complete("x" * 2_000_000), complete("fine"))
    mine = Recorder(tmp_path, "scope")
    found = recall(mine)

    assert found is not None
    assert found.outcome == complete("fine")
    mine.close()


@pytest.mark.parametrize("cut", [1, 5, 40, -9])
def test_a_torn_last_record_is_ignored(tmp_path: Path, cut: int) -> None:
    """Of a record that was being written when the process died nothing is believed; those before it count."""
    path = leave(tmp_path, complete("first"))
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    (tmp_path / "other").mkdir()
    second = Recorder(tmp_path / "other", "scope")
    second.record(attempt(complete("torn"), id="2"))
    entry = bytes(second._map[: second._at])
    second.close()
    torn = entry[:cut] if cut > 0 else entry[:cut] + b"\xff" * -cut
    path.write_bytes(whole[:end] + torn + whole[end + len(torn) :])
    mine = Recorder(tmp_path, "scope")

    assert recall(mine, id="2") is None
    assert recall(mine) is not None
    mine.close()


def test_the_halves_are_written_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a half is full the other is begun anew: the newest are always there, the oldest go, none is garbled."""
    monkeypatch.setattr(module, "_HALF", 4096)
    recorder = Recorder(tmp_path, "scope")
    for number in range(500):
        recorder.record(attempt(complete(f"m{number}"), id=str(number)))
    recorder.close(forget=False)
    mine = Recorder(tmp_path, "scope")
    known = [number for number in range(500) if recall(mine, id=str(number))]

    assert known == list(range(known[0], 500))
    assert 25 < len(known) < 70  # of about 130 bytes each: one half at least, two at most
    mine.close()


def test_several_threads_record_at_the_same_time(tmp_path: Path) -> None:
    """Slots record side by side, and every record is whole."""
    recorder = Recorder(tmp_path, "scope")
    barrier = threading.Barrier(4)

    def record(slot: int) -> None:
        barrier.wait()
        for number in range(300):
            recorder.record(attempt(complete("x" * number), id=f"{slot}-{number}"))

    threads = [threading.Thread(target=record, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close(forget=False)
    mine = Recorder(tmp_path, "scope")

    for slot in range(4):
        for number in range(300):
            found = recall(mine, id=f"{slot}-{number}")
            assert found is not None
            assert found.outcome == complete("x" * number)
    mine.close()


def test_recording_after_the_end_does_nothing(tmp_path: Path) -> None:
    """A thread that was left behind may end when the application has let go."""
    recorder = Recorder(tmp_path, "scope")
    recorder.close()
    recorder.record(attempt(complete()))

    assert not list(tmp_path.iterdir())


def test_nothing_is_left_when_everything_was_settled(tmp_path: Path) -> None:
    """close deletes the records, unless they are still needed."""
    recorder = Recorder(tmp_path, "scope")
    recorder.record(attempt(complete()))
    recorder.close(forget=True)

    assert not list(tmp_path.iterdir())


def test_no_room_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without room the application works on, unrecorded, says so, and leaves no file."""

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(logging.getLogger("taskbus"), "propagate", True)

    with caplog.at_level(logging.WARNING, "taskbus"):
        assert open_recorder("b", "t", "g", "e") is None
    assert "No space left on device" in caplog.text
    assert not list((tmp_path / f"taskbus-{os.getuid()}").iterdir())


@pytest.mark.parametrize("kind", ["open to others", "a link"])
def test_a_folder_that_is_not_ours_alone_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In a shared temporary folder somebody else may have made it first."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"taskbus-{os.getuid()}"
    if kind == "a link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    else:
        folder.mkdir()
        folder.chmod(0o755)

    assert open_recorder("b", "t", "g", "e") is None


def test_old_records_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour any lease is over: the records are neither believed nor kept."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    first = open_recorder("b", "t", "g", "e")
    assert first is not None
    first.record(attempt(complete()))
    first.close(forget=False)
    old = time.time() - 3700
    os.utime(first._path, (old, old))
    mine = open_recorder("b", "t", "g", "e")
    assert mine is not None

    assert recall(mine) is None
    assert not first._path.exists()
    mine.close()


def test_a_crash_loop_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead instances that recorded nothing leave nothing, the others only what they recorded, and only so many do."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(module, "_MOST_DEAD", 3)
    folder = tmp_path / f"taskbus-{os.getuid()}"
    folder.mkdir(mode=0o700)
    leave(folder)
    left = [leave(folder, complete(), id=str(number)) for number in range(5)]
    for age, path in enumerate(reversed(left)):
        os.utime(path, (time.time() - 100 * age, time.time() - 100 * age))
    live = Recorder(folder, "scope")

    mine = open_recorder("b", "t", "g", "e")

    assert mine is not None
    assert set(folder.iterdir()) == {*left[2:], live._path, mine._path}
    assert all(path.stat().st_size < 1000 for path in left[2:])
    assert [number for number in range(5) if recall(live, id=str(number))] == [2, 3, 4]
    assert abs(left[2].stat().st_mtime - (time.time() - 200)) < 50
    mine.close()
    live.close()


def test_a_crash_loop_does_not_fill_the_memory_of_those_who_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what dead instances left so much is remembered, for as long as a lease may last; of those gone nothing is."""
    monkeypatch.setattr(module, "_MOST_LEFT", 30)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    mine = Recorder(tmp_path, "scope")
    gone = leave(tmp_path, complete(), id="gone")
    assert recall(mine, id="gone") is not None
    gone.unlink()
    for instance in range(10):
        left = Recorder(tmp_path, "scope")
        for number in range(10):
            left.record(attempt(complete(), id=f"{instance}-{number}"))
        left.close(forget=False)
        now[0] += 1.0
        assert recall(mine, id="another") is None
    assert len(mine._left) == 30
    assert len(mine._read) == 10
    assert recall(mine, id="9-9") is not None
    assert recall(mine, id="0-0") is None
    now[0] += 3700.0
    assert recall(mine, id="another") is None
    assert not mine._left
    mine.close()


def test_records_that_are_just_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that has its file but not yet its lock is not taken for dead; once it is, its records count."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"taskbus-{os.getuid()}"
    folder.mkdir(mode=0o700)
    whole = leave(folder, complete())
    young = whole.with_name("scope-1-young.run")
    content = whole.read_bytes()
    whole.unlink()
    young.touch()
    other = open_recorder("b", "t", "g", "e")
    mine = Recorder(folder, "scope")
    assert recall(mine) is None
    assert young.exists()

    young.write_bytes(content)
    assert recall(mine) is not None
    mine.close()
    assert other is not None
    other.close()
