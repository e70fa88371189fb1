"""One walk through the dead letters of a topic: those that are meant are sent, the others stay.

What is not sent must be held until the end of the walk: handed back earlier it would be received again. So the walk
ends when everything that was there at the beginning was seen, when nothing more comes, or when more is held than may
be. Then all that is held goes back to the bus, in which it never lost its place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from apps.redrive.choice import Choice
from apps.redrive.letters import Letter, NotRedrivableError, Parts, read_letter
from apps.redrive.pace import Pace
from bus import Bus, Consumer, Delivery, LeaseLostError, Message, Producer, TooLargeError
from task.leases import keep_leases

__all__ = ["Sent", "Walk", "Walked"]

#: Messages received at a time.
_BATCH = 500
#: Seconds a receive waits; and those without a message after which nothing more is expected, where the bus cannot tell
#: how much is left, and where it says that there is more.
_TICK, _QUIET, _PATIENCE = 0.5, 2.0, 15.0
#: The most letters, and bytes of them, that are held.
_MOST, _MOST_BYTES = 100_000, 256 << 20


class Sent(NamedTuple):
    """A message sent, or to be sent, and the letters it was made of."""

    message: Message
    letter: Letter
    deliveries: tuple[Delivery, ...]


@dataclass(slots=True)
class Walked:
    """What came of a walk."""

    seen: int = 0
    #: Sent, or in a preview to be sent, by topic and code.
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Why letters stay that could not be sent, or may not be, and how many.
    stay: Counter[str] = field(default_factory=Counter)
    #: Sent, but somebody else has received the letter meanwhile.
    lost: int = 0
    #: Why the walk ended before its end; empty if it did not.
    cut: str = ""


class Walk:
    """Walks once. ``producer`` None is a preview: everything stays. ``tell`` is given what was sent, when confirmed.

    ``elsewhere``: the producer is of another bus. ``atomic``: ``finish`` of this consumer with this producer is.
    """

    def __init__(
        self,
        bus: Bus,
        consumer: Consumer,
        producer: Producer | None,
        choice: Choice,
        *,
        to: str | None,
        elsewhere: bool,
        limit: int | None,
        pace: Pace,
        atomic: bool,
        tell: Callable[[Sequence[Sent]], None],
    ) -> None:
        self._bus = bus
        self._consumer = consumer
        self._producer = producer
        self._choice = choice
        self._to = to
        self._elsewhere = elsewhere
        self._limit = limit
        self._pace = pace
        self._atomic = atomic
        self._tell = tell
        self.walked = Walked()
        #: By the bus's id, so that one that comes back is known.
        self._held: dict[str, Delivery] = {}
        self._bytes = 0
        self._parts: dict[tuple[str, ...], dict[int, tuple[Letter, Delivery]]] = {}
        self._done: set[str] = set()

    async def run(self) -> None:
        """Walk to the end. What is held stays unsettled: the consumer hands it back when it is closed.

        Raises:
            BusError: from the bus; what was told as sent was sent.
        """
        # If leases end all the same, the letters come again, and the walk ends there.
        keep = asyncio.create_task(keep_leases(self._consumer, lambda: list(self._held.values())))
        try:
            await self._walk()
        finally:
            keep.cancel()
            await asyncio.gather(keep, return_exceptions=True)

    async def _walk(self) -> None:
        there = await self._there()
        quiet = 0.0
        while not self._full() and (there is None or self.walked.seen < there):
            size = _BATCH if there is None else min(_BATCH, there - self.walked.seen)
            deliveries = await self._consumer.receive(size, _TICK)
            if not deliveries:
                quiet += _TICK
                if await self._ended(quiet):
                    break
                continue
            quiet = 0.0
            if not await self._take(deliveries):
                break
        for letters in self._parts.values():
            self.walked.stay["parts of a dead letter whose other parts were not found"] += len(letters)

    async def _there(self) -> int | None:
        """How many letters there are; None if the bus cannot tell."""
        if not self._bus.capabilities.depth:
            return None
        return (await self._bus.depth(self._consumer.topic, self._consumer.group or "")).total

    async def _ended(self, quiet: float) -> bool:
        """Whether nothing more is to be expected after so many seconds without a message."""
        if self._consumer.ended:
            return True
        if not self._bus.capabilities.depth:
            return quiet >= _QUIET
        ready = (await self._bus.depth(self._consumer.topic, self._consumer.group or "")).ready
        if ready and quiet >= _PATIENCE:
            self.walked.cut = f"the bus keeps back {ready} letters while {len(self._held)} are held"
            return True
        return not ready

    def _full(self) -> bool:
        """Whether no further letter may be received."""
        if self._limit is not None and self.walked.sent.total() >= self._limit:
            return True
        if len(self._held) >= _MOST or self._bytes >= _MOST_BYTES:
            self.walked.cut = (
                f"{len(self._held)} letters that stay are held, which is the most; those behind were not seen"
            )
            return True
        return False

    async def _take(self, deliveries: Sequence[Delivery]) -> bool:
        """Send and hold these. False once one comes that is held: the walk has gone round."""
        wanted: list[Sent] = []
        on = True
        for delivery in deliveries:
            if delivery.id in self._held:
                # Its lease was lost: there is no other way for it to come again. The newer delivery counts.
                self._held[delivery.id] = delivery
                self.walked.cut = "letters came again while they were held"
                on = False
                continue
            self.walked.seen += 1
            self._held[delivery.id] = delivery
            self._bytes += len(delivery.body)
            sent = self._look_at(delivery)
            if sent is not None and not self._enough(len(wanted)):
                self._done.add(sent.letter.identity)
                wanted.append(sent)
        for start in range(0, len(wanted), self._pace.batch):
            await self._send(wanted[start : start + self._pace.batch])
        return on

    def _enough(self, more: int) -> bool:
        return self._limit is not None and self.walked.sent.total() + more >= self._limit

    def _look_at(self, delivery: Delivery) -> Sent | None:
        """What is to be sent now that this letter has come; None if nothing."""
        try:
            letter = read_letter(delivery, self._to)
        except NotRedrivableError as error:
            self.walked.stay[str(error)] += 1
            return None
        deliveries: tuple[Delivery, ...] = (delivery,)
        if letter.parts is not None:
            whole = self._join(letter, letter.parts, delivery)
            if whole is None:
                return None
            letter, deliveries = whole
        if (self._to or letter.topic) == self._consumer.topic and not self._elsewhere:
            self.walked.stay["it would be sent to where it is (see --to)"] += len(deliveries)
            return None
        if not self._choice.fits(letter):
            return None
        if letter.identity in self._done:
            # It died again while we walked, and would do so for ever; or there are two letters of one task.
            self.walked.stay["its task was sent in this run already"] += len(deliveries)
            return None
        return Sent(letter.message(self._to), letter, deliveries)

    def _join(self, letter: Letter, parts: Parts, delivery: Delivery) -> tuple[Letter, tuple[Delivery, ...]] | None:
        found = self._parts.setdefault(parts.key, {})
        found[parts.number] = (letter, delivery)
        if len(found) < parts.total:
            return None
        del self._parts[parts.key]
        pieces = [found[number] for number in sorted(found)]
        body = b"".join(piece.body for piece, _ in pieces)
        return pieces[0][0].joined(body), tuple(delivery for _, delivery in pieces)

    async def _send(self, batch: Sequence[Sent]) -> None:
        if self._producer is None:
            self._note(batch)
            return
        await self._pace.wait(len(batch))
        try:
            await self._finish(batch, self._producer)
        except TooLargeError as error:
            if len(batch) == 1:
                self.walked.stay[f"too large for {error.topic or batch[0].message.topic}"] += len(batch[0].deliveries)
                return
            for sent in batch:
                await self._send([sent])
            return
        for sent in batch:
            for delivery in sent.deliveries:
                self._bytes -= len(self._held.pop(delivery.id).body)

    async def _finish(self, batch: Sequence[Sent], producer: Producer) -> None:
        """Publish and, when confirmed, acknowledge."""
        rest = list(batch)
        while rest:
            try:
                await self._consumer.finish(
                    [delivery for sent in rest for delivery in sent.deliveries],
                    [sent.message for sent in rest],
                    producer,
                )
            except LeaseLostError as error:
                gone = {delivery.id for delivery in error.deliveries}
                self.walked.lost += len(gone)
                if self._atomic:
                    # Nothing of the call was done. Whoever has the lost letters now deals with them.
                    rest = [sent for sent in rest if not any(delivery.id in gone for delivery in sent.deliveries)]
                    continue
            self._note(rest)
            return

    def _note(self, batch: Sequence[Sent]) -> None:
        self.walked.sent.update((sent.message.topic, sent.letter.code) for sent in batch)
        self._tell(batch)
