"""What a file of the alerts taskmaster does, in words."""

from __future__ import annotations

from collections.abc import Iterator

from bus.units import format_duration
from taskmasters.alerts.rules import AlertFile
from taskmasters.on_done.patterns import Match

__all__ = ["explain"]


def explain(file: AlertFile) -> Iterator[str]:
    """Lines that say what is told, to whom, when. Secrets are masked."""
    for rule in file.rules:
        yield f"{rule.id}{'' if rule.enabled else ' (disabled)'}"
        yield f"  on {', '.join(sorted(rule.kinds))} of {_said(rule.match)}"
        yield (
            f"  tells after {format_duration(rule.collect)}, then not for {format_duration(rule.min_interval)}, "
            f"doubled to {format_duration(rule.max_interval)} while it goes on"
        )
        for channel in file.channels:
            if channel.id in rule.to:
                yield f"  to {channel.id}: {channel.how}, {channel.shown}"
    for deadline in file.deadlines:
        yield f"{deadline.id}{'' if deadline.enabled else ' (disabled)'}"
        yield f"  {_said(deadline.match)} on topic {deadline.topic}: done within {format_duration(deadline.within)}"


def _said(match: Match) -> str:
    return str(match).removesuffix(str(match)[str(match).rindex(" that ended with ") :])
