"""Why each time a rule names fires or does not: clock changes, times that were missed, rules that are set aside."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

from bus.units import format_duration
from taskmasters.cron.rules import CronRule, Missed
from taskmasters.cron.schedule import Shown
from taskmasters.cron.scheduler import GRACE
from taskmasters.zone import EPOCH

__all__ = ["explain_last", "explain_next"]

_DAY = 86400
#: How far back times are looked for, in seconds: fifty years, as for those to come.
_FARTHEST = 50 * 366 * _DAY


def explain_next(rule: CronRule, now: float, count: int) -> Iterator[str]:
    """A line for each of the next ``count`` times that the rule names."""
    for shown in islice(rule.schedule.shown(int(now)), count):
        yield f"{_wall(rule, shown)}  {_fate(rule, shown)}"


def explain_last(rule: CronRule, now: float, count: int, fired: int | None) -> Iterator[str]:
    """A line for each of the last ``count`` times; ``fired`` is the latest instant that the state knows of."""
    length = _DAY
    found: list[Shown] = []
    while len(found) < count and length < _FARTHEST:
        found = list(takewhile(lambda shown: shown.at <= now, rule.schedule.shown(int(now) - length)))
        length *= 2
    latest = rule.schedule.last(int(now) - length, int(now))
    for shown in found[-count:]:
        past = "" if not rule.enabled or not shown.fires else f"; {_past(rule, shown.fires[-1], now, fired, latest)}"
        yield f"{_wall(rule, shown)}  {_fate(rule, shown)}{past}"


def _wall(rule: CronRule, shown: Shown) -> str:
    return f"{EPOCH + timedelta(seconds=shown.wall):%Y-%m-%d %H:%M:%S} {rule.schedule.zone_name}"


def _fate(rule: CronRule, shown: Shown) -> str:
    if not rule.enabled:
        return "does not fire: the rule is disabled"
    if not shown.fires:
        if shown.moments:
            return "does not fire again: the end of the gap before it is this very moment"
        return "does not fire: the clock never shows this"
    when = " and ".join(_utc(moment) for moment in shown.fires)
    late = (
        f", and is made {format_duration(round(rule.due(shown.fires[0]) - shown.fires[0]))} later"
        if rule.jitter
        else ""
    )
    if not shown.moments:
        return f"fires at {when}, the end of the gap: the clock never shows this{late}"
    if len(shown.moments) > len(shown.fires):
        return f"fires at {when}, the first of the two times the clock shows this{late}"
    if len(shown.fires) > 1:
        return f"fires at {when}: the clock shows this twice{late}"
    return f"fires at {when}{late}"


def _past(rule: CronRule, instant: int, now: float, fired: int | None, latest: int | None) -> str:
    if fired is None:
        return "not known to the state: a rule begins when it is first seen"
    if instant <= fired:
        return "dealt with, says the state"
    if now - rule.due(instant) <= GRACE:
        return "due now"
    if rule.missed is Missed.SKIP:
        return "missed, and not made up for (missed = skip)"
    if now - instant > rule.window:
        return f"missed, and not made up for: older than {format_duration(rule.window)} (window)"
    if rule.missed is Missed.LAST and instant != latest:
        return "missed, and not made up for: only the latest is (missed = last)"
    return "missed, and made up for at the next start"


def _utc(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
