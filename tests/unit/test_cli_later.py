"""``taskbus send`` for later: by the bus where it can, else by the delay taskmaster, and that is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from apps.cli.later import Later
from bus import parse_url
from bus.capabilities import Capabilities, Durability
from task import Task, decode
from task.times import parse_time
from tests.acceptance.support import pending
from tests.taskbus_command import taskbus


class Stub:
    """As much of a bus as is looked at."""

    def __init__(self, longest: float | None, processes: bool = True) -> None:
        self.capabilities = Capabilities(durability=Durability.D2, publish_delay=longest, processes=processes)
        self.url = parse_url("sqlite:x")


def test_a_bus_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bus can delay is published with its delay, and nothing is said."""
    later = Later(90.0, None, "delay")
    bus = Stub(3600.0)
    message = later.message(bus, Task("t", id="i"), "u")  # type: ignore[arg-type]
    assert (message.topic, message.delay) == ("u", 90.0)
    assert dict(decode(message.body).meta) == {}
    assert later.told(bus) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize("longest", [None, 60.0])
def test_a_bus_that_cannot(longest: float | None) -> None:
    """What it cannot goes to the delay taskmaster with moment and topic, and that is said."""
    later = Later(90.0, None, "delay")
    bus = Stub(longest)
    message = later.message(bus, Task("t", id="i", meta={"a": "b"}), "u")  # type: ignore[arg-type]
    assert (message.topic, message.delay) == ("delay", 0.0)
    meta = dict(decode(message.body).meta)
    when = parse_time(meta.pop("run_at"))
    assert meta == {"a": "b", "run_topic": "u"}
    assert timedelta(seconds=60) < when - datetime.now(UTC) <= timedelta(seconds=90)
    told = later.told(bus)  # type: ignore[arg-type]
    assert "sent to the topic delay, from where a running `taskbus taskmaster delay` sends on at 20" in told
    assert ("cannot delay" if longest is None else "delays by 1m at most") in told


@pytest.mark.parametrize(("topic", "processes"), [(None, True), ("delay", False)])
def test_left_to_the_bus(topic: str | None, processes: bool) -> None:
    """Where no taskmaster can be, or is wanted, the bus is asked, which refuses."""
    later = Later(90.0, None, topic)
    bus = Stub(None, processes)
    message = later.message(bus, Task("t", id="i"), "t")  # type: ignore[arg-type]
    assert (message.topic, message.delay, later.told(bus)) == ("t", 90.0, "")  # type: ignore[arg-type]


def test_a_moment_that_has_passed() -> None:
    """It is sent at once."""
    later = Later(0.0, datetime(2020, 1, 1, tzinfo=UTC), "delay")
    bus = Stub(None)
    message = later.message(bus, Task("t", id="i"), "t")  # type: ignore[arg-type]
    assert (message.topic, message.delay, later.told(bus)) == ("t", 0.0, "")  # type: ignore[arg-type]


def test_beyond_time() -> None:
    """A delay that leads out of the calendar is told as such."""
    with pytest.raises(click.UsageError, match="longer than time itself"):
        Later(1e15, None, "delay").told(Stub(None))  # type: ignore[arg-type]


def test_at_on_a_bus_that_can(tmp_path: Path) -> None:
    """--at delays on the bus itself, where that can."""
    at = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    result = taskbus("send", "a", "x", "--at", at, "--bus", "sqlite:work.db", cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    assert pending(f"sqlite:{tmp_path}/work.db", "a", "a").delayed == 1


def test_on_the_file_bus(tmp_path: Path) -> None:
    """The file bus cannot delay: the task is told to be in the topic delay, and is."""
    result = taskbus("send", "a", "x", "--delay", "1d", "--bus", "file:tasks", cwd=tmp_path)
    assert result.code == 0, result
    assert "taskbus: file: cannot delay: sent to the topic delay" in result.err
    (printed,) = result.tasks
    assert "run_at" in printed["meta"]
    peeked = taskbus("peek", "delay", "--bus", "file:tasks", cwd=tmp_path)
    assert [json.loads(line) for line in peeked.out.splitlines()] == [printed]

    refused = taskbus("send", "a", "x", "--delay", "1d", "--delay-topic", "-", "--bus", "file:tasks", cwd=tmp_path)
    assert refused.code == 2
    assert "cannot delay" in refused.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--at", "noon"], "'noon' is not a time; write it like"),
        (["--at", "2030-01-01", "--delay", "1s"], "--at and --delay: give one of them"),
        (["--delay", "1s", "--delay-topic", "a b"], "'a b' is not a topic name"),
    ],
)
def test_wrong_use(tmp_path: Path, args: list[str], said: str) -> None:
    """What cannot be meant gives exit code 2 and a sentence."""
    result = taskbus("send", "a", "x", *args, cwd=tmp_path)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
