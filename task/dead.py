"""Dead letters: what cannot be done is kept, with the reason and the original bytes.

A dead letter is one JSON object: ``dead`` (when), ``code`` and ``reason``, where it came from (``topic``, ``group``,
``message_id``), ``attempts``, ``history`` (reasons of earlier nacks) and ``tries`` (what each attempt ended with; of
one that never did when, where and by which process it was taken) where these are known, the task's ``type`` and ``id``
when they could be read, and the original message as ``body`` (text) or ``body_base64``. One too large for its bus is
split over several letters, with ``part`` (from 1) and ``parts``; their ``body_base64`` joined in order is the original.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from bus import Delivery
from task.delaying import attempts_before
from task.task import Task
from task.times import now_text

__all__ = ["DEAD", "dead_letter", "original", "split_dead_letter"]

#: Meta key of a done task whose worker made a dead letter of it too: the letter's code.
DEAD = "dead"
#: Bytes of a letter that are not its body; generous.
_ENVELOPE = 4096
#: Longest reason, and each entry of the history, kept in a letter.
_LONGEST = 1000
#: The same for the reason, type and id in each of several letters.
_SHORT = 200


def dead_letter(
    delivery: Delivery,
    *,
    topic: str,
    group: str | None,
    reason: str,
    code: str,
    task: Task | None = None,
    tries: Sequence[Mapping[str, object]] = (),
    dead: str | None = None,
) -> bytes:
    """The letter for one delivery. ``code`` is short and stable, ``reason`` is for people; ``dead`` None is now."""
    letter = _envelope(delivery, topic, group, reason, code, task)
    if dead is not None:
        letter["dead"] = dead
    if tries:
        letter["tries"] = list(tries)
    try:
        letter["body"] = delivery.body.decode()
    except UnicodeDecodeError:
        letter["body_base64"] = b64encode(delivery.body).decode()
    return orjson.dumps(letter)


def split_dead_letter(
    delivery: Delivery, *, topic: str, group: str | None, reason: str, code: str, task: Task | None, limit: int
) -> list[bytes]:
    """The same in letters of at most ``limit`` bytes, for a bus that does not take the whole."""
    letter = _envelope(delivery, topic, group, reason[:_SHORT], code, task)
    letter.pop("history", None)
    for key in ("type", "id"):
        if key in letter:
            letter[key] = letter[key][:_SHORT]
    room = max(256, (limit - min(_ENVELOPE, limit // 2)) // 4 * 3)
    pieces = [delivery.body[start : start + room] for start in range(0, len(delivery.body) or 1, room)]
    return [
        orjson.dumps(letter | {"part": number, "parts": len(pieces), "body_base64": b64encode(piece).decode()})
        for number, piece in enumerate(pieces, 1)
    ]


def original(letter: dict[str, Any]) -> bytes:
    """The message a letter keeps.

    Raises:
        ValueError: if it holds none.
    """
    if isinstance(letter.get("body"), str):
        return str(letter["body"]).encode()
    if isinstance(letter.get("body_base64"), str):
        return b64decode(letter["body_base64"], validate=True)
    raise ValueError("this is not a dead letter: it has neither 'body' nor 'body_base64'")


def _envelope(
    delivery: Delivery, topic: str, group: str | None, reason: str, code: str, task: Task | None
) -> dict[str, Any]:
    letter: dict[str, Any] = {"dead": now_text(), "code": code, "reason": _clean(reason), "topic": topic}
    if group is not None:
        letter["group"] = group
    letter["message_id"] = delivery.id
    letter["attempts"] = delivery.attempt + (attempts_before(task) if task is not None else 0)
    if delivery.history:
        letter["history"] = [_clean(entry) for entry in delivery.history]
    if task is not None:
        letter["type"] = task.type
        letter["id"] = task.id
    return letter


def _clean(text: str) -> str:
    return text[:_LONGEST].encode("utf-8", "replace").decode()
