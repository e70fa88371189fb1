"""The commands that look at a bus and move tasks between buses, as real processes on real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.taskbus_command import start, taskbus

SQLITE = "sqlite:work.db"


@pytest.fixture(params=[SQLITE, "file:tasks"])
def bus(request: pytest.FixtureRequest) -> str:
    """A bus that several processes share."""
    return str(request.param)


def send(folder: Path, bus: str, *values: str, topic: str = "a") -> list[str]:
    """Send tasks of type ``topic``; their ids."""
    lines = b"".join(json.dumps({"type": topic, "task": value}).encode() + b"\n" for value in values)
    result = taskbus("send", "--file", "-", "--bus", bus, cwd=folder, stdin=lines)
    assert result.code == 0, result
    return [task["id"] for task in result.tasks]


def values(text: str | bytes) -> list[str]:
    return [json.loads(line)["task"] for line in text.splitlines()]


def depth(folder: Path, bus: str, topic: str, group: str) -> dict[str, int]:
    result = taskbus("depth", topic, "--group", group, "--bus", bus, cwd=folder)
    assert result.code == 0, result
    (line,) = result.tasks
    assert (line.pop("topic"), line.pop("group")) == (topic, group)
    return line


def test_default_bus_is_in_the_current_folder(tmp_path: Path) -> None:
    """Without --bus and TASKBUS_BUS the tasks are in taskbus.db."""
    assert taskbus("send", "a", "x", cwd=tmp_path).code == 0

    assert (tmp_path / "taskbus.db").exists()
    assert taskbus("topics", cwd=tmp_path, env={"TASKBUS_BUS": "sqlite:taskbus.db"}).out == "a\n"


def test_topics_are_listed_one_per_line(tmp_path: Path, bus: str) -> None:
    """Topics are plain names, sorted."""
    send(tmp_path, bus, "1", topic="b")
    send(tmp_path, bus, "1", topic="a")

    result = taskbus("topics", "--bus", bus, cwd=tmp_path)
    assert (result.code, result.out, result.err) == (0, "a\nb\n", "")


def test_depth_counts_for_each_group(tmp_path: Path, bus: str) -> None:
    """A group has what is pending for it; one that does not exist, what it would receive."""
    send(tmp_path, bus, "1", "2", "3")
    nobody = taskbus("depth", "a", "--bus", bus, cwd=tmp_path)
    assert (nobody.code, nobody.out) == (0, "")
    assert "a has no group yet" in nobody.err

    moved = taskbus(
        "pipe", "--from", bus, "--topic", "a", "--to", "null:", "--group", "g", "--limit", "1", cwd=tmp_path
    )
    assert moved.code == 0, moved
    assert depth(tmp_path, bus, "a", "g") == {"ready": 2, "delayed": 0, "in_flight": 0, "total": 2}
    groups = taskbus("depth", "a", "--bus", bus, cwd=tmp_path).tasks
    assert [line["group"] for line in groups] == ["g"]


def test_delayed_tasks_are_counted_as_such(tmp_path: Path) -> None:
    """send --delay sends a task for later."""
    assert taskbus("send", "a", "x", "--delay", "1h", "--bus", SQLITE, cwd=tmp_path).code == 0

    assert depth(tmp_path, SQLITE, "a", "a") == {"ready": 0, "delayed": 1, "in_flight": 0, "total": 1}


def test_peek_shows_and_takes_nothing(tmp_path: Path, bus: str) -> None:
    """peek prints the oldest and leaves them."""
    send(tmp_path, bus, *"12345")

    for _ in range(2):
        result = taskbus("peek", "a", "--limit", "3", "--bus", bus, cwd=tmp_path)
        assert (result.code, values(result.out), result.err) == (0, ["1", "2", "3"], "")
    assert taskbus("peek", "nothing", "--bus", bus, cwd=tmp_path).out == ""


def test_wait_prints_the_done_task(tmp_path: Path, bus: str) -> None:
    """send --wait prints only the done task, with the same id, and its exit code is the result's."""
    worker = start("worker", "noop", "--bus", bus, cwd=tmp_path)
    try:
        for value, code in (("", 0), ("?result=warn", 0), ("?result=error", 1), ("?result=alert", 1)):
            result = taskbus("send", "noop", value, "--id", f"id{value}", "--wait", "--bus", bus, cwd=tmp_path)
            (done,) = result.tasks
            assert (result.code, done["id"], done["result"]) == (
                code, f"id{value}", value.removeprefix("?result=") or "complete"
            )  # fmt: skip
        lines = b'{"type":"noop","task":"?duration=20ms","id":"x"}\n{"type":"noop","task":"?result=error","id":"y"}\n'
        result = taskbus("send", "--file", "-", "--wait", "--bus", bus, cwd=tmp_path, stdin=lines)
        assert result.code == 1
        assert {task["id"] for task in result.tasks} == {"x", "y"}
    finally:
        worker.terminate()
        worker.communicate(timeout=30)


def test_wait_ends_when_time_is_up(tmp_path: Path, bus: str) -> None:
    """Without a worker --timeout ends the waiting with 3; the task stays."""
    result = taskbus("send", "a", "x", "--id", "i7", "--wait", "--timeout", "100ms", "--bus", bus, cwd=tmp_path)

    assert (result.code, result.out) == (3, "")
    assert "not done within 100ms: i7" in result.err
    assert depth(tmp_path, bus, "a", "a")["total"] == 1


def tail(folder: Path, bus: str, *args: str) -> subprocess.Popen[bytes]:
    """A ``tail`` of topic a that listens already."""
    process = start("tail", "a", "--bus", bus, *args, cwd=folder)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)

    def listens() -> bool:
        send(folder, bus, "ping")
        return b"ping" in ((process.stdout and process.stdout.readline()) or b"")

    wait_until(listens, 30)
    os.set_blocking(process.stdout.fileno(), True)
    return process


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_tail_prints_what_comes_until_told_to_stop(tmp_path: Path, bus: str, number: signal.Signals, code: int) -> None:
    """tail prints each new message as a line, takes it from nobody, and ends quietly."""
    process = tail(tmp_path, bus)
    send(tmp_path, bus, "1", "2")
    seen = b""
    while b'"2"' not in seen:
        assert process.stdout is not None
        seen = process.stdout.readline()
    process.send_signal(number)

    stopped, out, err = finish(process)
    assert (stopped, out, err.strip()) == (code, b"", b"")
    assert depth(tmp_path, bus, "a", "a")["ready"] >= 3


def test_tail_into_a_closed_pipe_ends_quietly(tmp_path: Path, bus: str) -> None:
    """``tail | head -1`` ends when the next message cannot be printed."""
    process = tail(tmp_path, bus)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    send(tmp_path, bus, "1")

    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_tail_from_start_prints_what_is_stored_first(tmp_path: Path, bus: str) -> None:
    """With --from-start and --limit the stored messages come first, then it ends."""
    send(tmp_path, bus, "1", "2", "3")
    result = taskbus("tail", "a", "--from-start", "--limit", "2", "--bus", bus, cwd=tmp_path)

    assert (result.code, values(result.out), result.err) == (0, ["1", "2"], "")


def test_what_is_not_json_is_wrapped(tmp_path: Path) -> None:
    """Every printed line is JSON, whatever the body."""
    (tmp_path / "raw").write_bytes(b'plain "text"\n\xff\xfe\n{"type":"a"}\n')
    taskbus("pipe", "--from", "lines:raw", "--topic", "a", "--to", SQLITE, cwd=tmp_path)
    result = taskbus("peek", "a", "--bus", SQLITE, cwd=tmp_path)

    assert result.tasks == [{"body": 'plain "text"'}, {"body_base64": "//4="}, {"type": "a"}]


def test_pipe_moves(tmp_path: Path, bus: str) -> None:
    """Moved messages are on the target as they were, in order, and gone from the source."""
    ids = send(tmp_path, bus, *map(str, range(600)))
    result = taskbus(
        "pipe", "--from", bus, "--topic", "a", "--to", "lines:out.jsonl", "--to-topic", "b", "--drain", cwd=tmp_path
    )

    assert (result.code, result.out, result.err) == (0, "", "taskbus: moved 600 from a to b\n")
    out = (tmp_path / "out.jsonl").read_text()
    assert [json.loads(line)["id"] for line in out.splitlines()] == ids
    assert depth(tmp_path, bus, "a", "a")["total"] == 0


def test_pipe_copies_beside_the_workers(tmp_path: Path, bus: str) -> None:
    """A copy leaves everything to the group of the workers."""
    send(tmp_path, bus, "1", "2")
    # The workers' group exists already, as that of a running worker does, and has done one task.
    taskbus("pipe", "--from", bus, "--topic", "a", "--to", "null:", "--limit", "1", cwd=tmp_path)
    result = taskbus(
        "pipe", "--from", bus, "--topic", "a", "--to", "lines:out.jsonl", "--copy", "--drain", cwd=tmp_path
    )

    assert result.code == 0
    assert "copied" in result.err
    assert (tmp_path / "out.jsonl").read_text().count("\n") >= 1
    assert depth(tmp_path, bus, "a", "a")["total"] == 1


def test_pipe_reads_a_file_to_its_end(tmp_path: Path, bus: str) -> None:
    """A finite input ends the pipe by itself."""
    (tmp_path / "in.jsonl").write_text('{"type":"x","task":"1"}\n{"type":"x","task":"2"}\n')
    result = taskbus("pipe", "--from", "lines:in.jsonl", "--topic", "x", "--to", bus, cwd=tmp_path)

    assert (result.code, result.err) == (0, "taskbus: moved 2 from x to x\n")
    assert values(taskbus("peek", "x", "--bus", bus, cwd=tmp_path).out) == ["1", "2"]


def test_pipe_within_one_bus(tmp_path: Path) -> None:
    """Dead letters, say, can be moved back to where they came from."""
    send(tmp_path, SQLITE, "1", "2", topic="a.dead")
    result = taskbus(
        "pipe", "--from", SQLITE, "--topic", "a.dead", "--to", SQLITE, "--to-topic", "a", "--drain", cwd=tmp_path
    )

    assert result.code == 0
    assert depth(tmp_path, SQLITE, "a", "a")["total"] == 2
    assert depth(tmp_path, SQLITE, "a.dead", "a.dead")["total"] == 0


def test_pipe_to_where_it_comes_from_is_refused(tmp_path: Path) -> None:
    """A pipe that would feed itself is a usage error."""
    result = taskbus("pipe", "--topic", "a", cwd=tmp_path)

    assert result.code == 2
    assert "back to where it came from" in result.err


def test_failing_target_loses_nothing(tmp_path: Path) -> None:
    """What the target does not take stays at the source."""
    send(tmp_path, SQLITE, "1", "x" * 2000, "3")
    args = ["--from", SQLITE, "--topic", "a", "--to", "lines:out.jsonl?max_line=1KB", "--drain"]
    result = taskbus("pipe", *args, cwd=tmp_path)

    assert (result.code, result.out) == (3, "")
    assert "over the lines bus's limit" in result.err
    assert depth(tmp_path, SQLITE, "a", "a") == {"ready": 3, "delayed": 0, "in_flight": 0, "total": 3}


def test_interrupted_pipe_hands_everything_back(tmp_path: Path) -> None:
    """Ctrl-C leaves nothing in flight."""
    process = start("pipe", "--topic", "a", "--to", "lines:out.jsonl", cwd=tmp_path, env={"TASKBUS_BUS": SQLITE})
    send(tmp_path, SQLITE, "1")
    wait_until(lambda: (tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl").read_text().endswith("\n"), 30)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)

    assert (code, out) == (130, b"")
    assert b"Traceback" not in err
    assert depth(tmp_path, SQLITE, "a", "a")["in_flight"] == 0


def test_worker_drains_a_topic(tmp_path: Path, bus: str) -> None:
    """taskbus worker … --drain ends by itself when its topic is empty."""
    send(tmp_path, bus, *"123", topic="noop")
    result = taskbus("worker", "noop", "--bus", bus, "--drain", cwd=tmp_path)

    assert (result.code, result.out) == (0, "")
    assert depth(tmp_path, bus, "noop", "noop")["total"] == 0
    done = taskbus("peek", "done", "--bus", bus, cwd=tmp_path).tasks
    assert [task["result"] for task in done] == ["complete"] * 3
