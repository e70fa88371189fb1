"""What consumers do to the state of their group. Run in the bus's thread, with the group locked."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from bus.contract import Delivery, Message
from bus.errors import BusError, LeaseLostError
from bus.file.reading import Reader, complete_lines, fingerprint
from bus.file.state import GroupState, Handle, Record

__all__ = ["Ack", "Claim", "Extend", "Finish", "GiveBack", "Operation", "Settling", "is_read_by"]

_log = logging.getLogger("taskbus.bus")
#: Bytes of bodies after which a claim is large enough.
_ENOUGH = 1024 * 1024

#: Told of every delivery that is no longer its consumer's.
Forget = Callable[[Delivery], object]


class Operation(ABC):
    """One change of a group's state. ``error`` is for its caller alone; what is raised fails the whole transaction."""

    error: BusError | None = None

    @abstractmethod
    def apply(self, state: GroupState, now: float) -> bool:
        """Change the state in memory; says whether it changed."""

    def confirmed(self) -> None:
        """The state was saved."""
        return


class Claim(Operation):
    """Take at most ``limit`` messages: first those whose delay or lease is over, then new lines."""

    def __init__(self, reader: Reader, limit: int, lease: float) -> None:
        self._reader = reader
        self._limit = limit
        self._lease = lease
        self.deliveries: list[Delivery] = []

    def apply(self, state: GroupState, now: float) -> bool:
        try:
            with self._reader.open() as fd:
                return self._take(fd, state, now)
        except FileNotFoundError:
            return False

    def _take(self, fd: int, state: GroupState, now: float) -> bool:
        started_over = not is_read_by(fd, state)
        if started_over:
            self._start_over(state)
        state.inode = os.fstat(fd).st_ino
        records = state.take_due(now, self._limit)
        bodies = [os.pread(fd, record.length, record.offset) for record in records]
        if len(records) < self._limit:
            self._read_on(fd, state, records, bodies)
        if not records:
            return started_over
        claim = state.claim(records, now + self._lease)
        self.deliveries = [
            Delivery(body, str(r.offset), r.attempt, None, r.history, Handle(r.offset, claim))
            for r, body in zip(records, bodies, strict=True)
        ]
        return True

    def _read_on(self, fd: int, state: GroupState, records: list[Record], bodies: list[bytes]) -> None:
        room, taken, position = self._limit - len(records), 0, state.position
        for line in complete_lines(fd, position, self._reader.longest, min(max(4096, room * 512), 256 * 1024)):
            records.append(Record(line.offset, len(line.body)))
            bodies.append(line.body)
            position = line.next
            room -= 1
            taken += len(line.body)
            if not room or taken >= _ENOUGH:
                break
        if position != state.position:
            state.position = position
            state.mark = fingerprint(fd, position)

    def _start_over(self, state: GroupState) -> None:
        _log.warning(
            "%s was truncated or replaced: it is read from its start, and %d unsettled messages of what was there "
            "before are forgotten",
            self._reader.path,
            len(state.pending),
        )
        state.position = state.mark = 0
        state.epoch = os.urandom(8).hex()
        state.pending.clear()


def is_read_by(fd: int, state: GroupState) -> bool:
    """Whether the file is the one that ``state`` is about, grown or not."""
    if not state.position:
        return True
    stat = os.fstat(fd)
    same = stat.st_ino == state.inode and stat.st_size >= state.position
    return same and fingerprint(fd, state.position) == state.mark


class Settling(Operation):
    """Something done to deliveries that are still their consumer's. The others of the call are reported lost."""

    def __init__(self, topic: str, deliveries: Sequence[Delivery], forget: Forget) -> None:
        self._topic = topic
        self._deliveries = deliveries
        self._forget = forget
        self._held: list[tuple[Delivery, Record]] = []
        self.lost: list[Delivery] = []

    def confirmed(self) -> None:
        for delivery, _ in self._held:
            delivery.handle = None
            self._forget(delivery)
        for delivery in self.lost:
            self._forget(delivery)

    def _find(self, state: GroupState) -> list[Record]:
        self._held, self.lost = state.held(self._deliveries)
        if self.lost:
            named = ", ".join(delivery.id for delivery in self.lost[:5]) + (" …" if len(self.lost) > 5 else "")
            self.error = LeaseLostError(
                f"{self._topic}: the lease of the messages at {named} ended and another consumer got them; extend "
                "leases in time or set a longer ?lease=",
                deliveries=self.lost,
                topic=self._topic,
            )
        return [record for _, record in self._held]


class Ack(Settling):
    """Done with these."""

    def apply(self, state: GroupState, now: float) -> bool:
        for record in self._find(state):
            state.settle(record)
        return bool(self._held)


class GiveBack(Settling):
    """Deliver these again from ``due`` on."""

    def __init__(
        self,
        topic: str,
        deliveries: Sequence[Delivery],
        forget: Forget,
        *,
        due: float,
        count: bool,
        reason: str | None = None,
    ) -> None:
        super().__init__(topic, deliveries, forget)
        self._due = due
        self._count = count
        self._reason = reason

    def apply(self, state: GroupState, now: float) -> bool:
        for record in self._find(state):
            state.give_back(record, self._due, count=self._count, reason=self._reason)
        return bool(self._held)


class Extend(Settling):
    """Start these leases anew. The lost ones are a result, not an error."""

    def __init__(self, topic: str, deliveries: Sequence[Delivery], forget: Forget, *, lease: float) -> None:
        super().__init__(topic, deliveries, forget)
        self._lease = lease

    def apply(self, state: GroupState, now: float) -> bool:
        for record in self._find(state):
            state.extend(record, now + self._lease)
        self.error = None
        return bool(self._held)

    def confirmed(self) -> None:
        for delivery in self.lost:
            self._forget(delivery)


class Finish(Settling):
    """Publish ``messages`` and settle these in one step, or neither; neither also if one of them is lost."""

    def __init__(self, topic: str, deliveries: Sequence[Delivery], forget: Forget, messages: Sequence[Message]) -> None:
        super().__init__(topic, deliveries, forget)
        self.messages = messages

    def apply(self, state: GroupState, now: float) -> bool:
        """Only find out; it is settled by :meth:`settle` when the messages are there."""
        self._find(state)
        return False

    @property
    def acks(self) -> list[int]:
        """Offsets of what is to be settled."""
        return [record.offset for _, record in self._held]

    def settle(self, state: GroupState) -> None:
        """The messages are there."""
        for _, record in self._held:
            if state.pending.get(record.offset) is record:
                state.settle(record)

    def confirmed(self) -> None:
        if self.error is None:
            super().confirmed()
