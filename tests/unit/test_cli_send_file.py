"""``taskbus send`` to a plain file, and from one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.taskbus_command import Result, command_line, environment, start, taskbus

OUT = ("--bus", "lines:out.jsonl")
GOOD = b'{"type":"a","task":"1","id":"i1"}\n'


def sent(folder: Path) -> list[dict[str, object]]:
    path = folder / "out.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_prints_the_task_it_sent(tmp_path: Path) -> None:
    """The sent task is one JSON line on stdout, the same as on the bus, and nothing else is printed."""
    result = taskbus(
        "send", "a", "wörld?x=1", "--meta", "k=v=w", "--meta", "e=", "--job", "j", "--id", "i", *OUT, cwd=tmp_path
    )

    assert (result.code, result.err) == (0, "")
    (task,) = result.tasks
    assert task.pop("created").endswith("Z")
    assert task == {"type": "a", "task": "wörld?x=1", "id": "i", "job": "j", "meta": {"k": "v=w", "e": ""}}
    assert [found | {"created": ""} for found in sent(tmp_path)] == [task | {"created": ""}]


def test_bus_on_stdout_prints_once(tmp_path: Path) -> None:
    """Where the bus is standard output the task is there once, ready for a pipe."""
    result = taskbus("send", "a", "b", "--bus", "stdio:", cwd=tmp_path)

    assert [task["task"] for task in result.tasks] == ["b"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "which task?"),
        (["a b", "x"], "'a b' is not a topic name"),
        (["", "x"], "a task needs a type"),
        (["a", "x", "--topic", "no topic"], "'no topic' is not a topic name"),
        (["a", "x", "--meta", "novalue"], "'novalue' is not KEY=VALUE"),
        (["a", "x", "--delay", "soon"], "'soon' is not a duration"),
        (["a", "x", "--delay", "-1s"], "'-1s' is negative"),
        (["a", "x", "--timeout", "1s"], "--timeout is for --wait"),
        (["a", "x", "--skip-bad"], "--skip-bad is for --file"),
        (["a", "x", "--file", "f"], "--file takes everything from the file"),
        (["a", "x", "--delay", "1s"], "the lines bus cannot delay"),
        (["a", "x", "--wait"], "the lines bus has no broadcast"),
        (["--file", "missing.jsonl"], "cannot read missing.jsonl: No such file or directory"),
        (["--file", "."], "cannot read .: Is a directory"),
    ],
)
def test_mistakes_send_nothing(tmp_path: Path, args: list[str], told: str) -> None:
    """A mistake is a usage error that names it; nothing is sent and nothing printed."""
    result = taskbus("send", *args, *OUT, cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert sent(tmp_path) == []


def test_value_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """An argument with undecodable bytes cannot become a task."""
    result = taskbus("send", "a", os.fsdecode(b"\xff"), *OUT, cwd=tmp_path)

    assert result.code == 2
    assert "lone surrogate" in result.err


def send_file(folder: Path, content: bytes, *args: str) -> Result:
    (folder / "tasks.jsonl").write_bytes(content)
    return taskbus("send", "--file", "tasks.jsonl", *OUT, *args, cwd=folder)


def test_file_is_sent_in_order(tmp_path: Path) -> None:
    """Every line is sent and printed, in order; what has no id or creation time gets one."""
    content = b"\xef\xbb\xbf" + GOOD + b"\r\n\n" + b'{"type":"b","extra":[1]}\r\n' + b'{"type":"a","info":"go"}'
    result = send_file(tmp_path, content)

    assert (result.code, result.err) == (0, "")
    assert result.tasks == sent(tmp_path)
    assert [task.get("task", task.get("info")) for task in result.tasks] == ["1", "", "go"]
    assert result.tasks[1]["extra"] == [1]
    assert all(task["id"] and task["created"] for task in result.tasks)


def test_more_than_a_batch_is_sent_whole(tmp_path: Path) -> None:
    """Batches lose and repeat nothing."""
    content = b"".join(b'{"type":"a","task":"%d"}\n' % number for number in range(1234))
    result = send_file(tmp_path, content)

    assert result.code == 0
    assert [task["task"] for task in sent(tmp_path)] == [str(number) for number in range(1234)]


BAD = GOOD + b"\n{oops\n" + GOOD + b'{"type":"no topic"}\n' + b"[1]\n" + b'"' + b"x" * 2_000_000 + b'"\n' + GOOD


def test_bad_lines_are_named_and_nothing_is_sent(tmp_path: Path) -> None:
    """Each bad line is reported with its number; the good ones stay unsent."""
    result = send_file(tmp_path, BAD)

    assert (result.code, result.out) == (1, "")
    lines = result.err.splitlines()
    assert lines[0].startswith("taskbus: tasks.jsonl:3: not JSON")
    assert lines[1].startswith("taskbus: tasks.jsonl:5: 'no topic' is not a topic name")
    assert lines[2].startswith("taskbus: tasks.jsonl:6: a task is a JSON object")
    assert lines[3].startswith("taskbus: tasks.jsonl:7: ")
    assert "more than the limit" in lines[3]
    assert lines[4:] == ["taskbus: error: 4 of 7 lines of tasks.jsonl are no tasks; nothing was sent (see --skip-bad)"]
    assert sent(tmp_path) == []


def test_skip_bad_sends_the_others(tmp_path: Path) -> None:
    """With --skip-bad the good lines are sent and the bad ones still named."""
    result = send_file(tmp_path, BAD, "--skip-bad")

    assert result.code == 0
    assert len(sent(tmp_path)) == len(result.tasks) == 3
    assert "tasks.jsonl:3:" in result.err


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    """A file of another kind does not flood the terminal."""
    result = send_file(tmp_path, b"nonsense\n" * 1000)

    assert result.code == 1
    assert len(result.err.splitlines()) == 22
    assert "and 980 more" in result.err


@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_empty_file_sends_nothing_and_says_so(tmp_path: Path, content: bytes) -> None:
    """No tasks is no failure, but not silent."""
    result = send_file(tmp_path, content)

    assert (result.code, result.out) == (0, "")
    assert "tasks.jsonl holds no tasks" in result.err


def test_standard_input_is_checked_as_a_whole_too(tmp_path: Path) -> None:
    """A pipe, which cannot be read twice, is sent only if all of it is good."""
    good = taskbus("send", "--file", "-", *OUT, cwd=tmp_path, stdin=GOOD * 3)
    bad = taskbus("send", "--file", "-", *OUT, cwd=tmp_path, stdin=GOOD * 3 + b"{")

    assert (good.code, bad.code) == (0, 1)
    assert "standard input:4:" in bad.err
    assert len(sent(tmp_path)) == 3


def test_redirected_standard_input_starts_where_it_stands(tmp_path: Path) -> None:
    """What was read from the file before is not sent again."""
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"header\n" + GOOD)
    with path.open("rb", buffering=0) as stream:
        os.read(stream.fileno(), len(b"header\n"))
        process = start("send", "--file", "-", *OUT, cwd=tmp_path, stdin=stream)
        out, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (0, b"")
    assert len(out.splitlines()) == 1


def test_closed_output_is_quiet(tmp_path: Path) -> None:
    """``taskbus send … | head -1`` ends with 141 and no complaint."""
    (tmp_path / "tasks.jsonl").write_bytes(GOOD * 20_000)
    process = start("send", "--file", "tasks.jsonl", *OUT, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(60), err) == (141, b"")


def test_missing_output_is_quiet(tmp_path: Path) -> None:
    """With standard output closed from the start the task is sent all the same, and only to the bus."""
    process = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command_line("send", "a", "b", *OUT)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=60,
    )

    assert (process.returncode, process.stderr) == (141, b"")
    assert len(sent(tmp_path)) == 1


def test_full_output_is_told(tmp_path: Path) -> None:
    """Output that cannot be written is an error with the system's reason."""
    with open("/dev/full", "wb") as full:
        process = start("send", "a", "b", *OUT, cwd=tmp_path, stdout=full)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert err == b"taskbus: error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_signal_while_reading_is_quiet(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM end it without a traceback, and nothing is sent."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = start("send", "--file", "fifo", *OUT, cwd=tmp_path)
    with fifo.open("wb") as stream:
        stream.write(GOOD)
        stream.flush()
        wait_until(lambda: is_reading(process.pid))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err.strip()) == (code, b"", b"")
    assert sent(tmp_path) == []


def is_reading(pid: int) -> bool:
    """Whether it sleeps, having opened the FIFO."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "S" and any(
        os.readlink(fd).endswith("/fifo") for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()
    )
