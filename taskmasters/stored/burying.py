"""Dead letters for messages of the outbox that the bus will never take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import orjson
from sqlalchemy import Connection

from bus import Delivery
from task.codec import DEFAULT_MAX_SIZE, decode
from task.dead import dead_letter, original, split_dead_letter
from task.errors import DecodeError
from task.task import Task, derive_id
from task.times import format_time
from taskmasters.store import Outgoing, outbox
from taskmasters.store.relay import Refused

__all__ = ["bury"]

_MAX_SIZE = 4 * DEFAULT_MAX_SIZE


def bury(tx: Connection, refused: Sequence[Refused], letters_of: Callable[[str], str], now: float) -> None:
    """Put a dead letter for each into the outbox; for a dead letter that is too large, the same in parts.

    ``letters_of`` says where the dead letters of a topic go; of a topic of dead letters, that is the topic itself. What
    is refused even so stays in the table of the outbox, as the relay leaves it.
    """
    for one in refused:
        outbox.put(tx, *_letters(one, letters_of(one.message.topic), now))


def _letters(one: Refused, dead_topic: str, now: float) -> Iterator[Outgoing]:
    message = one.message
    moment = format_time(datetime.fromtimestamp(now, UTC))
    if message.topic != dead_topic:
        task = _task(message.body)
        delivery = Delivery(message.body, message.id)
        reason = f"the bus does not take it: {one.reason}"
        letter = dead_letter(
            delivery, topic=message.topic, group=None, reason=reason, code="refused", task=task, dead=moment
        )
        yield Outgoing(derive_id("dead", message.id), dead_topic, letter, now)
        return
    letter_data = orjson.loads(message.body)
    if one.limit is None or "parts" in letter_data:
        return
    body = original(letter_data)
    pieces = split_dead_letter(
        Delivery(body, letter_data["message_id"], letter_data["attempts"]),
        topic=letter_data["topic"],
        group=None,
        reason=letter_data["reason"],
        code=letter_data["code"],
        task=_task(body),
        limit=one.limit,
    )
    for number, piece in enumerate(pieces):
        yield Outgoing(derive_id("part", message.id, str(number)), dead_topic, piece, now)


def _task(body: bytes) -> Task | None:
    try:
        return decode(body, _MAX_SIZE)
    except DecodeError:
        return None
