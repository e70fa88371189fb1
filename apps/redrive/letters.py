"""A dead letter read back, and what is sent for it."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from bus import BadNameError, Delivery, Message, check_topic
from task.codec import DEFAULT_MAX_SIZE, decode, encode
from task.dead import original
from task.delaying import ATTEMPTS
from task.errors import DecodeError
from task.task import Task, derive_id
from task.times import parse_time

__all__ = ["REDRIVEN", "Letter", "NotRedrivableError", "Parts", "read_letter"]

#: Meta key: how often the task was sent back.
REDRIVEN = "redriven"
#: Bytes of the largest task that is given the count; a dead letter may hold what was too large for a worker.
_MAX_SIZE = 8 * DEFAULT_MAX_SIZE


class NotRedrivableError(Exception):
    """A message that cannot be sent back, and why."""


class Parts(NamedTuple):
    """The place of a letter among those that hold one message: ``number`` of ``total``, from 1; ``key`` is theirs."""

    key: tuple[str, ...]
    number: int
    total: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``task`` is None if the message it keeps is none, or if this is only one part of it."""

    topic: str
    code: str
    reason: str
    dead: datetime | None
    message_id: str
    type: str
    id: str
    body: bytes
    task: Task | None
    parts: Parts | None

    def joined(self, body: bytes) -> Letter:
        """The letter of the whole message, of which this was the first part."""
        return _with_body(self, body)

    @property
    def identity(self) -> str:
        """What tells its task from others: the id, or, where there is none, the message; and the topic."""
        return derive_id("letter", self.topic, self.id) if self.id else derive_id("body", self.topic, self.body.hex())

    def message(self, to: str | None) -> Message:
        """What is sent for it: to ``to``, or to the topic it came from.

        A task keeps its id, counts its attempts anew, and tells in meta how often it was sent back. What is no task is
        sent as it was.
        """
        topic = to or self.topic
        body = self.body
        if self.task is not None:
            before = self.task.meta.get(REDRIVEN, "")
            count = int(before) + 1 if before.isascii() and before.isdigit() and len(before) < 10 else 1
            kept = {key: value for key, value in self.task.meta.items() if key != ATTEMPTS}
            meta = {**kept, REDRIVEN: str(count)}
            body = encode(self.task.replace(meta=meta, id=self.id or None))
        moment = "" if self.dead is None else self.dead.isoformat()
        return Message(topic, body, None, 0.0, derive_id("redrive", self.identity, self.message_id, moment, topic))


def read_letter(delivery: Delivery, to: str | None) -> Letter:
    """The letter a message is; it will be sent to ``to``, if that is not None.

    Raises:
        NotRedrivableError: if it is none, or does not say to which topic it belongs.
    """
    data = _object(delivery.body)
    parts = _parts(data)
    try:
        body = b64decode(data["body_base64"], validate=True) if parts else original(data)
    except (KeyError, TypeError, ValueError):
        raise NotRedrivableError("it is no dead letter") from None
    topic = _text(data, "topic")
    if to is None:
        try:
            check_topic(topic)
        except BadNameError:
            raise NotRedrivableError("it does not say which topic it came from (see --to)") from None
    letter = Letter(
        topic=topic,
        code=_text(data, "code"),
        reason=_text(data, "reason"),
        dead=_moment(_text(data, "dead")),
        message_id=_text(data, "message_id"),
        type=_text(data, "type"),
        id=_text(data, "id"),
        body=body,
        task=None,
        parts=parts,
    )
    return letter if parts else _with_body(letter, body)


def _with_body(letter: Letter, body: bytes) -> Letter:
    """The letter of a whole message."""
    try:
        task = decode(body, _MAX_SIZE)
    except DecodeError:
        return replace(letter, body=body, parts=None)
    # The receiver gives an id to a task that came without one, and the letter has it.
    return replace(letter, type=task.type, id=task.id or letter.id, body=body, task=task, parts=None)


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise NotRedrivableError("it is no dead letter") from None
    if not isinstance(data, dict):
        raise NotRedrivableError("it is no dead letter")
    return data


def _parts(data: dict[str, Any]) -> Parts | None:
    if "parts" not in data:
        return None
    number, count = data.get("part"), data["parts"]
    if type(number) is not int or type(count) is not int or not 1 <= number <= count:
        raise NotRedrivableError("it is part of a dead letter, but does not say which")
    key = tuple(_text(data, name) for name in ("topic", "group", "message_id", "dead"))
    return Parts((*key, str(count)), number, count)


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _moment(text: str) -> datetime | None:
    try:
        return parse_time(text) if text else None
    except ValueError:
        return None
