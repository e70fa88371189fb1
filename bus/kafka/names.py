"""The topics of Kafka that are ours: those of our names, and one per group for what is to be tried again."""

from __future__ import annotations

import re

from bus.errors import BadNameError
from bus.names import check_topic

__all__ = ["check_user_topic", "is_user_topic", "retry_group", "retry_topic"]

#: No topic of a user may begin so.
_RETRY = "taskbus-retry-"
_OURS = re.compile(r"[.a-zA-Z0-9_-]{1,64}")
_PARTS = re.compile(re.escape(_RETRY) + r"(\d{1,2})-(.+)", re.DOTALL)


def retry_topic(topic: str, group: str) -> str:
    """Where ``group`` keeps what it was given back of ``topic``. The length keeps two pairs of names apart."""
    return f"{_RETRY}{len(topic)}-{topic}-{group}"


def retry_group(name: str, topic: str) -> str | None:
    """The group whose retry topic of ``topic`` this is, ``None`` if it is none."""
    found = _PARTS.fullmatch(name)
    if found is None or int(found[1]) != len(topic) or not found[2].startswith(f"{topic}-"):
        return None
    return found[2][len(topic) + 1 :]


def is_user_topic(name: str) -> bool:
    """Whether a topic on the server can be named through this bus."""
    return bool(_OURS.fullmatch(name)) and not name.startswith(("__", _RETRY)) and name.strip(".") != ""


def check_user_topic(name: str) -> str:
    """Return ``name`` if it is a topic name and not one of Kafka's or our own inner ones. Raises BadNameError."""
    check_topic(name)
    if not is_user_topic(name):
        raise BadNameError(
            f"{name!r} cannot be used: topics beginning with __ are Kafka's own, with {_RETRY} those of this adapter",
            topic=name,
        )
    return name
