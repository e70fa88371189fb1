"""``taskbus redrive`` as a real process on real files."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from task import Task, encode
from tests.acceptance.support import pending, publish, taken
from tests.taskbus_command import start, taskbus

SQLITE = "sqlite:work.db"
REJECTING = """
from task import Context, Outcome, Worker, complete, reject


class Picky(Worker):
    type = "picky"

    def do_task(self, ctx: Context) -> Outcome:
        return complete("at last") if "redriven" in self.task.meta else reject(f"no {self.task.value}")
"""


def dead(number: int, code: str = "crashed") -> bytes:
    body = encode(Task("t", str(number), id=str(number))).decode()
    return json.dumps({"dead": "2026-01-01T00:00:00Z", "code": code, "topic": "t", "body": body}).encode()


@pytest.mark.parametrize("bus", [SQLITE, "file:tasks"])
def test_from_a_worker_and_back(tmp_path: Path, bus: str) -> None:
    """What a worker rejected is looked at, sent back, and done; nothing is left."""
    (tmp_path / "picky.py").write_text(REJECTING)
    lines = b'{"type":"picky","task":"a","id":"1"}\n{"type":"picky","task":"b","id":"2"}\n'
    assert taskbus("send", "--file", "-", "--bus", bus, cwd=tmp_path, stdin=lines).code == 0
    assert taskbus("worker", "picky.py", "--bus", bus, "--drain", cwd=tmp_path).code == 0

    looked = taskbus("redrive", "picky.dead", "--bus", bus, "--value", "b", cwd=tmp_path)
    assert looked.code == 0, looked
    assert [(task["id"], task["meta"]) for task in looked.tasks] == [("2", {"redriven": "1"})]
    assert "would send 1 of 2 dead letters; --execute sends them" in looked.err

    sent = taskbus("redrive", "picky.dead", "--bus", bus, "--value", "b", "--execute", cwd=tmp_path)
    assert sent.code == 0, sent
    assert sent.tasks == looked.tasks
    assert sent.err == "taskbus: sent 1 to picky (code rejected)\ntaskbus: sent 1 of 2 dead letters\n"
    again = taskbus("redrive", "picky.dead", "--bus", bus, "--execute", cwd=tmp_path)
    assert [task["id"] for task in again.tasks] == ["1"]
    none = taskbus("redrive", "picky.dead", "--bus", bus, "--execute", cwd=tmp_path)
    assert (none.code, none.out, none.err) == (0, "", "taskbus: sent 0 of 0 dead letters\n")

    assert taskbus("worker", "picky.py", "--bus", bus, "--drain", cwd=tmp_path).code == 0
    done = taken(f"{bus.partition(':')[0]}:{tmp_path}/{bus.partition(':')[2]}", "done")
    assert [(task["id"], task["result"]) for task in done] == [
        ("1", "error"), ("2", "error"), ("2", "complete"), ("1", "complete")
    ]  # fmt: skip


def test_from_a_file_to_a_bus(tmp_path: Path) -> None:
    """The dead letters that a worker wrote beside its output are sent to a bus."""
    (tmp_path / "out.jsonl.dead").write_bytes(dead(1) + b"\n" + dead(2, "rejected") + b"\n")
    args = ["redrive", "t.dead", "--bus", "lines:out.jsonl.dead", "--to-bus", SQLITE, "--code", "rej*", "--execute"]
    result = taskbus(*args, cwd=tmp_path)

    assert result.code == 0, result
    assert [task["id"] for task in taken(f"sqlite:{tmp_path}/work.db", "t")] == ["2"]


def test_killed_while_it_sends(tmp_path: Path) -> None:
    """Killed at random moments, every task is sent at least once and no letter is left."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, *(dead(number) for number in range(2000)), topic="t.dead")
    dice = random.Random(5)
    args = ["redrive", "t.dead", "--bus", f"{SQLITE}?lease=1s", "--execute", "--rate", "2000/s"]
    for _ in range(5):
        process = start(*args, cwd=tmp_path)
        assert process.stdout is not None
        process.stdout.readline()  # it has begun to send
        time.sleep(dice.uniform(0.0, 0.1))  # any moment will do, so there is none to wait for
        process.kill()
        process.communicate()
    assert pending(url, "t.dead", "redrive").total > 0, "it was done before it could be killed"
    while pending(url, "t.dead", "redrive").total:
        assert taskbus(*args, cwd=tmp_path).code == 0

    ids = [task["id"] for task in taken(url, "t")]
    assert set(ids) == {str(number) for number in range(2000)}


def test_ctrl_c_hands_everything_back(tmp_path: Path) -> None:
    """SIGINT ends it at once; it tells what was sent, and the rest is there again."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, *(dead(number) for number in range(200)), topic="t.dead")
    process = start("redrive", "t.dead", "--bus", SQLITE, "--execute", "--rate", "10/s", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    sent = 1 + len(out.splitlines())
    assert process.returncode == 130
    assert f"sent {sent} of 200 dead letters" in err.decode()
    assert pending(url, "t.dead", "redrive").ready == 200 - sent


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["t.dead", "--to", "t.dead"], "this would send everything back to where it is"),
        (["t.dead", "--rate", "fast"], "'fast' is not a rate"),
        (["t.dead", "--since", "noon"], "'noon' is neither a time like"),
        (["t.dead", "--until", "99999999w"], "is neither a time like"),
        (["t.dead", "--meta", "x"], "'x' is not KEY=VALUE"),
        (["t.dead", "--to", "a b"], "'a b' is not a topic name"),
        (["a b"], "'a b' is not a topic name"),
        ([], "Missing argument 'TOPIC'"),
    ],
)
def test_wrong_use(tmp_path: Path, args: list[str], said: str) -> None:
    """What cannot be meant gives exit code 2 and a sentence; nothing is made."""
    result = taskbus("redrive", *args, "--execute", cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert list(tmp_path.iterdir()) == []


def test_since_is_a_time_or_how_long_ago(tmp_path: Path) -> None:
    """--since takes both."""
    url = f"sqlite:{tmp_path}/work.db"
    publish(url, dead(1), topic="t.dead")
    for since, count in (("2026-01-01T00:00:00Z", 1), ("2026-01-01", 1), ("2026-01-01T00:00:01Z", 0), ("1m", 0)):
        result = taskbus("redrive", "t.dead", "--bus", SQLITE, "--since", since, cwd=tmp_path)
        assert len(result.tasks) == count, result
