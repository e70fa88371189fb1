"""Topic and group names that are safe on every bus: as a file name, a subject, a topic."""

from __future__ import annotations

import re

from bus.errors import BadNameError

__all__ = ["check_group", "check_topic", "dead_topic"]

#: NSQ's rule, the narrowest of the buses served: https://nsq.io/overview/design.html
_NAME = re.compile(r"[.a-zA-Z0-9_-]{1,64}")
_DEAD = ".dead"


def check_topic(name: str) -> str:
    """Return ``name`` if it is a topic name on every bus.

    Raises:
        BadNameError: saying which characters are allowed.
    """
    return _check(name, "topic")


def check_group(name: str) -> str:
    """Return ``name`` if it is a group name on every bus. Raises BadNameError."""
    return _check(name, "group")


def dead_topic(topic: str) -> str:
    """Where the dead letters of ``topic`` go: ``topic`` + ``.dead``, shortened to fit the name limit."""
    return topic if topic.endswith(_DEAD) else topic[: 64 - len(_DEAD)] + _DEAD


def _check(name: str, what: str) -> str:
    if not _NAME.fullmatch(name) or name.strip(".") == "":
        raise BadNameError(
            f"{name[:80]!r} is not a {what} name: use 1 to 64 of letters, digits, '.', '_' and '-', not only dots",
            topic=name if what == "topic" else None,
        )
    return name
