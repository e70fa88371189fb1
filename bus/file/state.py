"""What a group knows: how far it has read, and every message it has taken and not settled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from bus.contract import Delivery, Depth

__all__ = ["NOT_SENT", "SENT", "SENT_AT", "GroupState", "Handle", "Outbox", "Record", "Saved"]

#: Written at a fixed place, so that the fate of an outbox is decided by one byte.
_HEAD = b'{"sent":0,"v":1,'
#: Where in the file the fate of the outbox is, and the values that replace the first, ``0``.
SENT_AT = len(b'{"sent":')
SENT, NOT_SENT = b"1", b"2"
#: Types of what is kept of a record; a time may be a whole number.
_FORMS = tuple((int, int, int, int, due, list) for due in (float, int))


class Handle(NamedTuple):
    """Which message a delivery is of, and by which claim it was taken."""

    offset: int
    claim: int


class Record:
    """One message taken and not settled. ``claim`` is 0 if nobody has it; ``due`` is the end of its lease or delay."""

    __slots__ = ("attempt", "claim", "due", "history", "length", "offset")

    def __init__(
        self, offset: int, length: int, attempt: int = 0, claim: int = 0, due: float = 0.0, history: Iterable[str] = ()
    ) -> None:
        self.offset = offset
        self.length = length
        self.attempt = attempt
        self.claim = claim
        self.due = due
        self.history = tuple(history)


class GroupState:
    """Reading position and unsettled records. ``soonest`` is no later than the earliest ``due`` among them."""

    __slots__ = ("claims", "epoch", "inode", "mark", "pending", "position", "settled", "soonest")

    def __init__(self, inode: int = 0, position: int = 0, mark: int = 0, claims: int = 0, epoch: str = "") -> None:
        self.inode = inode
        self.position = position
        self.mark = mark
        self.claims = claims
        #: Another text whenever offsets begin anew.
        self.epoch = epoch or os.urandom(8).hex()
        self.pending: dict[int, Record] = {}
        self.soonest = float("inf")
        #: What the transaction under way has settled: not lost, but done with.
        self.settled: set[Handle] = set()

    def add(self, record: Record) -> None:
        """Have a message among the unsettled."""
        self.pending[record.offset] = record
        self.soonest = min(self.soonest, record.due)

    def take_due(self, now: float, limit: int) -> list[Record]:
        """At most ``limit`` records whose delay or lease is over, in the order of the file."""
        if self.soonest > now:
            return []
        due = sorted((record for record in self.pending.values() if record.due <= now), key=_offset)
        later = [record.due for record in self.pending.values() if record.due > now]
        self.soonest = 0.0 if len(due) > limit else min(later, default=float("inf"))
        return due[:limit]

    def claim(self, records: Sequence[Record], until: float) -> int:
        """Give these to one consumer; returns the number of the claim."""
        self.claims += 1
        for record in records:
            record.attempt += 1
            record.claim = self.claims
            record.due = until
            self.add(record)
        return self.claims

    def held(self, deliveries: Iterable[Delivery]) -> tuple[list[tuple[Delivery, Record]], list[Delivery]]:
        """Those of the unsettled deliveries which are still their consumer's, with their records, and the lost ones."""
        held: dict[Handle, tuple[Delivery, Record]] = {}
        lost: list[Delivery] = []
        for delivery in deliveries:
            handle: Handle | None = delivery.handle
            if handle is None or handle in self.settled:
                continue
            record = self.pending.get(handle.offset)
            if record is None or record.claim != handle.claim:
                lost.append(delivery)
            else:
                held[handle] = delivery, record
        return list(held.values()), lost

    def settle(self, record: Record) -> None:
        """Done with this one for good."""
        self.settled.add(Handle(record.offset, record.claim))
        del self.pending[record.offset]

    def give_back(self, record: Record, due: float, *, count: bool, reason: str | None) -> None:
        """Have this one delivered again from ``due`` on."""
        self.settled.add(Handle(record.offset, record.claim))
        record.claim = 0
        record.due = due
        if not count:
            record.attempt -= 1
        if reason is not None:
            record.history += (reason,)
        self.soonest = min(self.soonest, due)

    def extend(self, record: Record, until: float) -> None:
        """Start a lease anew."""
        record.due = until
        self.soonest = min(self.soonest, until)

    def depth(self, unread: int, now: float) -> Depth:
        """What is pending, given how many messages were never taken."""
        in_flight = sum(record.claim != 0 and record.due > now for record in self.pending.values())
        delayed = sum(record.claim == 0 and record.due > now for record in self.pending.values())
        return Depth(unread + len(self.pending) - in_flight - delayed, delayed, in_flight)


class Outbox(NamedTuple):
    """Lines to be appended together with the settling of ``acks`` (offsets).

    ``ends`` holds the inode and the length of each topic's file before that.
    """

    lines: dict[str, bytes]
    ends: dict[str, tuple[int, int]]
    acks: list[int]


class Saved(NamedTuple):
    """The contents of a state file. ``sent`` is the fate of the outbox: ``None`` = not known to have been appended."""

    state: GroupState
    outbox: Outbox | None
    sent: bool | None

    def after(self, *, sent: bool) -> GroupState:
        """The state once the fate of the outbox is known."""
        if self.outbox is not None and sent:
            for offset in self.outbox.acks:
                self.state.pending.pop(offset, None)
        return self.state

    @staticmethod
    def encode(state: GroupState, outbox: Outbox | None) -> bytes:
        """The file's bytes, with the fate of the outbox open."""
        fields: dict[str, Any] = {
            "inode": state.inode,
            "position": state.position,
            "mark": state.mark,
            "claims": state.claims,
            "epoch": state.epoch,
            "pending": [[r.offset, r.length, r.attempt, r.claim, r.due, r.history] for r in state.pending.values()],
        }
        payload = b""
        if outbox is not None:
            payload = b"".join(outbox.lines.values())
            fields["acks"] = outbox.acks
            fields["outbox"] = [[topic, *outbox.ends[topic], len(data)] for topic, data in outbox.lines.items()]
        return _HEAD + orjson.dumps(fields)[1:] + b"\n" + payload

    @staticmethod
    def decode(data: bytes) -> Saved:
        """Read it back.

        Raises:
            ValueError: saying what is wrong with it.
        """
        head, newline, payload = data.partition(b"\n")
        try:
            fields = orjson.loads(head)
            if not newline or fields["v"] != 1:
                raise ValueError("it is cut short or of another version")
            inode, position, mark, claims = (_number(fields[name]) for name in ("inode", "position", "mark", "claims"))
            state = GroupState(inode, position, mark, claims, str(fields["epoch"]))
            for record in fields["pending"]:
                if tuple(map(type, record)) not in _FORMS or not all(type(reason) is str for reason in record[5]):
                    raise TypeError(f"a record {record!r}")
                state.add(Record(*record))
            outbox = _decode_outbox(fields, payload) if "outbox" in fields else None
            sent = {1: True, 2: False}.get(fields["sent"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not what this bus writes: {error!r}") from None
        return Saved(state, outbox, sent)


def _number(found: object) -> int:
    if type(found) is not int or not 0 <= found < 2**63:
        raise TypeError(f"a number {found!r}")
    return found


def _decode_outbox(fields: dict[str, Any], payload: bytes) -> Outbox:
    lines: dict[str, bytes] = {}
    ends: dict[str, tuple[int, int]] = {}
    at = 0
    for topic, inode, end, length in fields["outbox"]:
        size = _number(length)
        lines[str(topic)], ends[str(topic)] = payload[at : at + size], (_number(inode), _number(end))
        at += size
    if at != len(payload):
        raise ValueError("it is cut short")
    return Outbox(lines, ends, [_number(offset) for offset in fields["acks"]])


def _offset(record: Record) -> int:
    return record.offset
