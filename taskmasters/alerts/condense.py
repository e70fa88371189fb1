"""Many moments and values as a short text: ``2026-01-01…2026-01-05, 2026-01-09``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

__all__ = ["condense"]

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
#: Ranges that are written out.
_MOST = 20


def condense(moments: Iterable[datetime]) -> str:
    """Ranges of days if every moment is a midnight, else of hours; those not on the hour one by one."""
    found = sorted(set(moments))
    if not found:
        return ""
    daily = all(not (moment.hour or moment.minute or moment.second) for moment in found)
    step, form = (_DAY, "%Y-%m-%d") if daily else (_HOUR, "%Y-%m-%dT%H")
    ranges = list(_ranges(found, step, form))
    rest = len(ranges) - _MOST
    return ", ".join(ranges[:_MOST]) + (f" and {rest} more" if rest > 0 else "")


def _ranges(found: list[datetime], step: timedelta, form: str) -> Iterator[str]:
    first = last = found[0]
    for moment in [*found[1:], None]:
        if moment is not None and moment - last == step:
            last = moment
            continue
        yield _text(first, form) if first == last else f"{_text(first, form)}…{_text(last, form)}"
        if moment is not None:
            first = last = moment


def _text(moment: datetime, form: str) -> str:
    return moment.strftime(form if not (moment.minute or moment.second) else "%Y-%m-%dT%H:%M:%S")
