"""Sending tasks that are to be done later: by the bus if it can wait so long, else by the delay taskmaster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from bus import Bus, Message
from bus.units import format_duration
from task.codec import encode
from task.delaying import delayed
from task.task import Task
from task.times import format_time

__all__ = ["Later"]


@dataclass(frozen=True, slots=True)
class Later:
    """After ``delay`` seconds, or at the moment ``at``. ``topic`` is where the delay taskmaster takes tasks, if any."""

    delay: float
    at: datetime | None
    topic: str | None

    def message(self, bus: Bus, task: Task, topic: str) -> Message:
        """What to publish, so that the task gets to ``topic`` when it is to."""
        if self._by_taskmaster(bus) and self.topic is not None:
            return Message(self.topic, encode(delayed(task, self._moment(), topic)))
        return Message(topic, encode(task), None, self._seconds())

    def told(self, bus: Bus) -> str:
        """What the user should know; empty if the bus does it itself."""
        if not self._by_taskmaster(bus):
            return ""
        longest = bus.capabilities.publish_delay
        can = f"delays by {format_duration(longest)} at most" if longest else "cannot delay"
        when = format_time(self._moment())
        return (
            f"{bus.url.scheme}: {can}: sent to the topic {self.topic}, from where a running `taskbus taskmaster delay` "
            f"sends on at {when}"
        )

    def _by_taskmaster(self, bus: Bus) -> bool:
        # On a bus that no other process reads there can be no taskmaster: the bus itself will refuse.
        can = bus.capabilities
        return self.topic is not None and can.processes and self._seconds() > (can.publish_delay or 0.0)

    def _seconds(self) -> float:
        return self.delay if self.at is None else max(0.0, (self.at - datetime.now(UTC)).total_seconds())

    def _moment(self) -> datetime:
        if self.at is not None:
            return self.at
        try:
            return datetime.now(UTC) + timedelta(seconds=self.delay)
        except OverflowError:
            raise click.UsageError("--delay: is longer than time itself") from None
