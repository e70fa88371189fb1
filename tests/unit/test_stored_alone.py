"""The engines of retry and delay together on a virtual clock, without bus, threads or chance."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from task import Task, decode
from taskmasters.delay.engine import DelayEngine
from taskmasters.retry.engine import RetryEngine
from taskmasters.retry.records import RECORDS
from taskmasters.retry.rules import load_retry_rules
from taskmasters.stored.alone import EngineAlone

RULES = """
[[rule]]
match = { type = "t" }
retries = 8
delay = "1h"
backoff = "fibonacci"
max_delay = "10h"
"""
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = 3600.0


def play(folder: Path) -> list[tuple[str, float]]:
    """A task delayed for ten days that then fails for ever: topics, and hours after NOON."""
    path = folder / "rules.toml"
    path.write_text(RULES)
    delay = EngineAlone(DelayEngine("delay", "delay.dead"))
    retry = EngineAlone(RetryEngine(load_retry_rules(str(path)), failed_topic="retry-failed", keep=1e9), RECORDS)
    engines, now = [delay, retry], NOON.timestamp()
    story: list[tuple[str, float]] = []
    assert delay.take(Task("t", id="i", meta={"run_at": "10d"}, created=NOON), now) == []
    while (wakes := [wake for engine in engines if (wake := engine.wake) is not None]) and (now := min(wakes)):
        for message in [message for engine in engines for message in engine.tick(now)]:
            story.append((message.topic, (now - NOON.timestamp()) / HOUR))
            if message.topic == "t":
                when = datetime.fromtimestamp(now, UTC)
                done = decode(message.body).replace(result="error", msg="no", started=when, completed=when)
                story += [(end.topic, (now - NOON.timestamp()) / HOUR) for end in retry.take(done, now)]
    for engine in engines:
        engine.close()
    return story


def test_a_fortnight(tmp_path: Path) -> None:
    """Delayed for ten days, then retried after 1, 1, 2, 3, 5, 8, 10 and 10 hours, to the second; twice the same."""
    hours = [240.0, 241.0, 242.0, 244.0, 247.0, 252.0, 260.0, 270.0, 280.0]
    story = [*(("t", hour) for hour in hours), ("t.dead", 280.0), ("retry-failed", 280.0)]
    assert play(tmp_path) == story
    assert play(tmp_path) == story


def test_the_end_is_told(tmp_path: Path) -> None:
    """What follows at once from a task is given at once: here, that it is given up."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES.replace("retries = 8", "retries = 0"))
    retry = EngineAlone(RetryEngine(load_retry_rules(str(path)), failed_topic="retry-failed", keep=1e9), RECORDS)
    sent = retry.take(Task("t", id="i", created=NOON).replace(result="error"), NOON.timestamp())
    assert [message.topic for message in sent] == ["t.dead", "retry-failed"]
    assert retry.wake is None
    retry.close()


def test_what_would_be_dead(tmp_path: Path) -> None:
    """What would become a dead letter is raised."""
    delay = EngineAlone(DelayEngine("delay", "delay.dead"))
    with pytest.raises(ValueError, match="it does not say when"):
        delay.take(Task("t", id="i"), NOON.timestamp())
    delay.close()
