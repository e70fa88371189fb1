"""Files of which a power failure or somebody else has left only a part, or zeros."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from task.dead import original
from tests.acceptance.support import Odd, as_lines, publish, task_line
from tests.faults.special.stage import collect
from tests.taskbus_command import taskbus

#: Publishes the lines of its input one by one and is killed, so that the log stays as it is.
_PUBLISHER = """
import asyncio, bus, os, signal, sys


async def run():
    async with bus.connect(sys.argv[1]) as b:
        producer = await b.producer()
        for line in sys.stdin.buffer.read().splitlines():
            await producer.publish("odd", line)
        os.kill(os.getpid(), signal.SIGKILL)


asyncio.run(run())
"""
_IDS = [f"t{number}" for number in range(20)]


def _publish(url: str, ids: list[str]) -> None:
    publish(url, *(task_line("", id) for id in ids))


def _drain(folder: Path, url: str) -> set[str]:
    """Do everything that is there; the ids reported."""
    folder.mkdir(exist_ok=True)
    odd = Odd(folder).run("--bus", url, "--drain")
    assert odd.code == 0, odd.err
    return {task["id"] for task in collect(url, "done", 0, quiet=0.3)}


@pytest.mark.parametrize("tail", [b'{"type":"odd","ta', b"\0" * 300 + b'{"ty'], ids=["half", "zeros"])
def test_the_end_of_a_topic(tmp_path: Path, tail: bytes) -> None:
    """On the file bus what a failure left behind the last confirmed line spoils neither that line nor the next."""
    url = f"file:{tmp_path}/bus"
    _publish(url, _IDS[:10])
    with (tmp_path / "bus" / "odd.jsonl").open("ab") as file:
        file.write(tail)
    _publish(url, _IDS[10:])

    assert _drain(tmp_path / "worker", url) == set(_IDS)
    (letter,) = collect(url, "odd.dead", 1, quiet=0.3)
    assert original(letter) == tail


def test_the_middle_of_a_topic(tmp_path: Path) -> None:
    """A block of zeros in the middle costs the lines it covers, which are dead-lettered, and none besides."""
    url = f"file:{tmp_path}/bus"
    _publish(url, _IDS)
    path = tmp_path / "bus" / "odd.jsonl"
    data = bytearray(path.read_bytes())
    lines = data.split(b"\n")
    start = sum(len(line) + 1 for line in lines[:5]) + 10
    end = sum(len(line) + 1 for line in lines[:8]) + 10
    data[start:end] = bytes(end - start)
    path.write_bytes(data)

    assert _drain(tmp_path / "worker", url) == set(_IDS) - set(_IDS[5:9])
    (letter,) = collect(url, "odd.dead", 1, quiet=0.3)
    assert letter["code"] == "not-json"
    assert original(letter).count(b"\0") == end - start


@pytest.mark.parametrize(
    "end", [b"\0" * 4096 + b'{"type":"odd"', b'{"type":"odd","task":"","id":"la'], ids=["zeros", "half"]
)
def test_the_end_of_an_input(tmp_path: Path, end: bytes) -> None:
    """Of lines read from a file the whole ones are done and the torn one lies in the dead letters; exit code 0."""
    odd = Odd(tmp_path).files(as_lines(*(task_line("", id) for id in _IDS)) + end)

    assert odd.code == 0
    assert {task["id"] for task in odd.done} == set(_IDS)
    assert b"".join(body for _, body in odd.dead()) == end


@pytest.mark.parametrize("damage", ["cut", "zeros", "gone"])
def test_the_log_of_a_database(tmp_path: Path, damage: str) -> None:
    """What a failure leaves of SQLite's log behind the last commit that was synced hides nothing that was confirmed."""
    (tmp_path / "live").mkdir()
    url = f"sqlite:{tmp_path}/live/bus.db"
    killed = subprocess.run(
        [sys.executable, "-c", _PUBLISHER, url], input=as_lines(*(task_line("", id) for id in _IDS))
    )
    assert killed.returncode == -9
    wal = tmp_path / "live" / "bus.db-wal"
    size = wal.stat().st_size
    assert size > 0
    with wal.open("r+b") as file:
        file.seek(size)
        if damage == "zeros":
            file.write(b"\0" * 9000)
        elif damage == "cut":
            # As the beginning of the next transaction would be.
            shutil.copyfile(wal, tmp_path / "copy")
            file.write((tmp_path / "copy").read_bytes()[32 : 32 + 3000])
    if damage == "gone":
        (tmp_path / "live" / "bus.db-shm").unlink()

    assert _drain(tmp_path / "worker", url) == set(_IDS)
    assert taskbus("depth", "odd", "--group", "odd", "--bus", url, cwd=tmp_path).code == 0
