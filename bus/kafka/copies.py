"""A message to be tried again is written anew into the retry topic of its group; its headers say what it was."""

from __future__ import annotations

import json
from typing import NamedTuple

__all__ = ["HEADERS", "Origin", "read_origin", "write_origin"]

#: Bytes by which the headers may make a message larger.
HEADERS = 32 * 1024
#: Characters of all reasons kept; the oldest go first.
_HISTORY = 2500
#: As the client library takes them.
Headers = list[tuple[str, str | bytes | None]]
_ID, _ATTEMPT, _DUE, _REASONS = "taskbus-id", "taskbus-attempt", "taskbus-due", "taskbus-history"


class Origin(NamedTuple):
    """What a copy says of the message: its id, the attempts made, when it is due (Unix time), reasons of nacks."""

    id: str
    attempts: int = 0
    due: float = 0.0
    history: tuple[str, ...] = ()


def write_origin(origin: Origin) -> Headers:
    """The headers of a copy."""
    kept: list[str] = []
    room = _HISTORY
    for reason in reversed(origin.history):
        short = reason[:1000]
        room -= len(short)
        if room < 0:
            break
        kept.append(short)
    return [
        (_ID, origin.id.encode()),
        (_ATTEMPT, b"%d" % origin.attempts),
        (_DUE, b"%d" % round(origin.due * 1000)),
        (_REASONS, json.dumps(kept[::-1]).encode()),
    ]


def read_origin(headers: Headers | dict[str, str | bytes | None] | None, otherwise: str) -> Origin:
    """What the headers say; of a message that is no copy of ours, that its id is ``otherwise``."""
    pairs = headers.items() if isinstance(headers, dict) else headers or ()
    found = {name: value if isinstance(value, bytes) else str(value).encode() for name, value in pairs}
    try:
        history = tuple(str(reason) for reason in json.loads(found[_REASONS]))
        return Origin(found[_ID].decode(), int(found[_ATTEMPT]), int(found[_DUE]) / 1000, history)
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        return Origin(otherwise)
