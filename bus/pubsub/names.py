"""Topics and groups as ids of Pub/Sub, and back.

An id of Pub/Sub begins with a letter, has 3 to 255 of letters, digits and ``-_.~+%``, and does not begin with ``goog``
(https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names). Our names hold no ``~``, so what stands behind one
never meets a name, and with a prefix every name is an id.

==================  ============  ==================================================
``PREFIX-T``        topic         the topic
``PREFIX-T``        subscription  of the first group that ever joined; it exists from the start, so nothing is lost
``PREFIX-T~first``  topic         a note, without messages: its labels say which group that is
``PREFIX-T~G``      subscription  of any other group
``PREFIX-T~~ID``    subscription  of one broadcast
==================  ============  ==================================================
"""

from __future__ import annotations

import re
import uuid
from typing import NamedTuple

__all__ = ["Names", "decode_labels", "encode_labels"]

#: Longest value of a label: https://cloud.google.com/pubsub/docs/labels
_LABEL = 63
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class Names(NamedTuple):
    """The names of one project under one prefix."""

    project: str
    prefix: str

    def topic(self, topic: str) -> str:
        """The topic, also where it is missing: for looking whether anybody answers."""
        return f"projects/{self.project}/topics/{self.prefix}-{topic}"

    def note(self, topic: str) -> str:
        """Which group was first."""
        return f"{self.topic(topic)}~first"

    def first(self, topic: str) -> str:
        """The subscription of the first group."""
        return f"projects/{self.project}/subscriptions/{self.prefix}-{topic}"

    def group(self, topic: str, group: str) -> str:
        """The subscription of any other group."""
        return f"{self.first(topic)}~{group}"

    def broadcast(self, topic: str) -> str:
        """A new subscription for one listener."""
        return f"{self.first(topic)}~~{uuid.uuid4().hex}"

    def topic_of(self, name: str) -> str | None:
        """Our name of a topic, ``None`` if it is not ours or is a note."""
        start = f"projects/{self.project}/topics/{self.prefix}-"
        return name[len(start) :] if name.startswith(start) and "~" not in name else None

    def group_of(self, topic: str, name: str) -> str | None:
        """Our name of the group with this subscription; empty for the first; ``None`` for a broadcast and others'."""
        if name == self.first(topic):
            return ""
        start = self.group(topic, "")
        rest = name[len(start) :]
        return rest if name.startswith(start) and rest and "~" not in rest else None


def encode_labels(group: str) -> dict[str, str]:
    """A group's name as labels, which hold small letters, digits, ``-`` and ``_``, and no more than 63 of them."""
    text = "".join(each if each in _PLAIN else f"_{ord(each):02x}" for each in group)
    return {f"group-{start // _LABEL}": text[start : start + _LABEL] for start in range(0, len(text), _LABEL)}


def decode_labels(labels: dict[str, str]) -> str:
    """The reverse of :func:`encode_labels`; empty if there is no group in them."""
    text = "".join(labels.get(f"group-{number}", "") for number in range(4))
    return re.sub(r"_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), text)
