"""The batcher as a real process: killed again and again in the midst of requests."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

import pytest

from task.task import Task, derive_id
from tests.acceptance.support import pending, publish, taken
from tests.helpers import wait_until
from tests.taskbus_command import start, taskbus

ARGS = ("taskmaster", "batcher", "--bus", "sqlite:work.db?lease=2s", "--log-format", "json")


def made(folder: Path, topic: str = "load") -> int:
    return pending(f"sqlite:{folder}/work.db", topic, "test").total


def run(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """At work: it logs that it has started."""
    log = folder / "log"
    with log.open("wb") as stream:
        process = start(*ARGS, *more, cwd=folder, stderr=stream, stdout=subprocess.DEVNULL)
    wait_until(lambda: '"event":"started"' in log.read_text() or process.poll() is not None, 60)
    assert process.poll() is None, log.read_text()
    return process


def test_killed_in_the_midst(tmp_path: Path) -> None:
    """Eight kills, each in the midst of a request for 1,500 tasks: the distinct ids are those named, and each ends."""
    url = f"sqlite:{tmp_path}/work.db"
    (tmp_path / "rows.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(1500)))
    for topic in ("load", "done", "batcher"):
        assert taken(url, topic) == []
    dice, cut_short, process = random.Random(5), 0, None
    try:
        for number in range(8):
            publish(url, Task("batcher", "rows.csv?type=load#{row:id}", id=f"r{number}"), topic="batcher")
            process = run(tmp_path, "--rows-folder", ".")
            time.sleep(dice.random() * 0.25)  # any moment will do, so there is none to wait for
            process.kill()
            process.wait()
            cut_short += made(tmp_path, "done") <= number
        assert cut_short, "each was done before it could be killed"
        process = run(tmp_path, "--rows-folder", ".")
        wait_until(lambda: made(tmp_path, "done") >= 8, 90)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process is not None:
            process.kill()
            process.wait()
    found = Counter(task["id"] for task in taken(url, "load"))
    assert set(found) == {derive_id("batch", f"r{n}", "load", "", str(row)) for n in range(8) for row in range(1500)}
    ends = {task["id"]: task["msg"] for task in taken(url, "done")}
    assert ends == {f"r{n}": "made 1500 tasks" for n in range(8)}
    print(f"cut short: {cut_short} of 8 times; sent twice: {found.total() - len(found)}")


def test_sent_by_the_command(tmp_path: Path) -> None:
    """A request is sent as any task is; what is wrong is a dead letter; the status page tells."""
    process = run(tmp_path, "--status-port", "0")
    try:
        (page,) = [json.loads(line)["url"] for line in (tmp_path / "log").read_text().splitlines() if '"url"' in line]
        sent = taskbus("send", "batcher", "?type=load&from=2026-01-01&for=2d", "--bus", "sqlite:work.db", cwd=tmp_path)
        assert sent.code == 0, sent
        assert taskbus("send", "batcher", "?typ=load", "--bus", "sqlite:work.db", cwd=tmp_path).code == 0
        wait_until(lambda: made(tmp_path) == 3 and made(tmp_path, "done") == 2, 60)
        with urlopen(f"{page}", timeout=10) as answer:
            told = json.load(answer)
        assert (told["app"], told["tasks_made"], told["results"]) == ("batcher", 3, {"accepted": 1, "dead": 1})
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    (letter,) = taken(f"sqlite:{tmp_path}/work.db", "batcher.dead")
    assert letter["code"] == "bad-request"
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--rows-folder", "none"], "--rows-folder none: is no folder"),
        (["--rules", "none.toml"], "none.toml: cannot be read"),
        (["--workflows", "none.toml"], "none.toml: cannot be read"),
        (["--done-topic", "batcher"], "nothing else can be sent there"),
        (["--dry-run", "none.jsonl"], "cannot read none.jsonl"),
    ],
)
def test_wrong_use(tmp_path: Path, args: list[str], said: str) -> None:
    """It is told at the start."""
    done = taskbus("taskmaster", "batcher", *args, cwd=tmp_path)
    assert (done.code, said in done.err) == (2, True), done
