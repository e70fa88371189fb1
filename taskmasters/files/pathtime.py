"""The moment a path tells by the usual conventions, as flowlord reads it."""

from __future__ import annotations

import re
from datetime import datetime

from taskmasters.zone import EPOCH, Zone

__all__ = ["path_time"]

_YEAR, _TWO = r"(?P<y>[12]\d{3})", r"\d\d"
_MONTH, _DAY, _HOUR = rf"(?P<m>{_TWO})", rf"(?P<d>{_TWO})", rf"(?P<h>{_TWO})"
#: In the order they are tried. None is part of a longer number.
_FORMS = [
    re.compile(rf"(?<!\d){form}(?!\d)")
    for form in (
        rf"{_YEAR}{_MONTH}{_DAY}T{_HOUR}(?P<min>{_TWO})(?P<s>{_TWO})",
        rf"{_YEAR}/{_MONTH}/{_DAY}/{_HOUR}",
        rf"{_YEAR}/{_MONTH}/{_DAY}",
        rf"{_YEAR}-{_MONTH}-{_DAY}T{_HOUR}",
        rf"{_YEAR}-{_MONTH}-{_DAY}",
        rf"{_YEAR}/{_MONTH}",
    )
]


def path_time(path: str, zone: Zone) -> datetime | None:
    """``…/20260131T050000.json``, ``…/2026/01/31/05/…``, ``…/2026/01/31/…``, ``…2026-01-31…``, ``…/2026/01/…``.

    What the clock in ``zone`` shows. The last that fits and is a date counts; None if there is none.
    """
    for form in _FORMS:
        for match in reversed(list(form.finditer(path))):
            parts = match.groupdict()
            try:
                year, month, day = (int(parts.get(key) or 1) for key in ("y", "m", "d"))
                hour, minute, second = (int(parts.get(key) or 0) for key in ("h", "min", "s"))
                wall = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - a wall has no zone
            except ValueError:
                continue
            return datetime.fromtimestamp(zone.moment(int((wall - EPOCH).total_seconds())), zone.info)
    return None
