"""Whether the machines agree on the time."""

from __future__ import annotations

from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, problem, warning
from apps.doctor.setup import Setup
from bus.units import format_duration

__all__ = ["CHECKS"]

#: Seconds apart that are worth a word, and that are wrong for certain.
_OFF, _FAR = 2.0, 30.0
#: Buses that are elsewhere.
_SERVED = ("kafka", "nats", "nsq", "pubsub")


def _clock(setup: Setup) -> Iterator[Finding]:
    for ahead, place in setup.numbers("clock.ahead"):
        if abs(ahead) >= _OFF:
            side = "ahead of" if ahead > 0 else "behind"
            yield (problem if abs(ahead) >= _FAR else warning)(
                f"the clock of {place} is {format_duration(round(abs(ahead), 1))} {side} ours",
                "delays and times of creation mean something else on either machine; cron fires early or late",
                "have both machines keep the time by NTP: `timedatectl set-ntp true`",
            )


CHECKS = (Check("clock", "Do the server's clock and ours agree?", _clock, ("fact:clock.ahead",), _SERVED),)
