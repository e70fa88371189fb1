"""A listener takes nothing from groups yet to come.

nsqd gives all it holds of a topic to the first channel there is, be it a listener's, and what nobody else has a channel
for is gone with it. So a listener first sees that there is a channel that lasts, and makes one, :data:`KEPT`, if there
is none. The first group to come moves what is in there into its own channel by publishing it again, and then deletes
it: nsqd can neither rename a channel nor copy one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl

from bus.errors import BusError, UnreachableError
from bus.nsq import protocol
from bus.nsq.connection import Connection
from bus.nsq.nodes import Nodes
from bus.nsq.options import Address, NsqOptions
from bus.nsq.protocol import Message

__all__ = ["KEPT", "Keeper"]

_log = logging.getLogger("taskbus.bus")
#: The channel of what came while only listeners were there.
KEPT = "taskbus-kept"
#: Messages moved at once.
_BATCH = 100
#: Seconds to wait for more before asking whether that was all.
_PAUSE = 0.2
#: Seconds after which to look again: a listener may have looked just before the group came.
_AGAIN = 5.0
#: Seconds between two looks while somebody else moves them, at most.
_LONGEST = 15.0


class Keeper:
    """Keeps the messages of one topic, and hands them over."""

    def __init__(self, topic: str, nodes: Nodes, options: NsqOptions, tls: ssl.SSLContext | None) -> None:
        self._topic = topic
        self._nodes = nodes
        self._options = options
        self._tls = tls

    async def keep(self, node: Address) -> None:
        """To be called before a listener joins. Raises UnreachableError."""
        if not await self._nodes.channels(node, self._topic):
            await self._nodes.command(node, "/topic/create", topic=self._topic)
            await self._nodes.command(node, "/channel/create", topic=self._topic, channel=KEPT)

    async def hand_over(self, node: Address) -> None:
        """To be called when the group has its channel. Returns when there is nothing kept any more."""
        for wait in (0.0, _AGAIN):
            await asyncio.sleep(wait)
            pause = _PAUSE
            try:
                while kept := (await self._nodes.channels(node, self._topic)).get(KEPT):
                    if not kept["client_count"] and await self._move(node):
                        break
                    await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                    pause = min(pause * 2, _LONGEST)
            except BusError as error:
                _log.info("topic %s: cannot look for messages kept for its first group: %s", self._topic, error)

    async def _move(self, node: Address) -> bool:
        """Move everything, unless somebody else does. Returns whether all is moved."""
        connection = Connection(node, self._options, self._tls)
        came: asyncio.Queue[list[Message]] = asyncio.Queue()
        connection.on_messages = came.put_nowait
        await connection.open()
        try:
            await connection.ask(protocol.subscribe(self._topic, KEPT), self._topic)
            kept, now = await self._look(node)
            if kept["client_count"] != 1:
                return False
            # What was published before the next second begins may not be in the group's channel, what is published
            # later is: that is how what was published again is told from what is still to be.
            cut = now + 1
            while now < cut:
                await asyncio.sleep(_PAUSE)
                _, now = await self._look(node)
            connection.send(protocol.ready(_BATCH))
            return await self._empty(node, connection, came, cut * 10**9)
        finally:
            await self._leave(connection, came)

    async def _empty(self, node: Address, connection: Connection, came: asyncio.Queue[list[Message]], cut: int) -> bool:
        moved = 0
        while not connection.closed.is_set():
            batch: list[Message] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE):
                    batch += await came.get()
            while not came.empty():
                batch += came.get_nowait()
            step = asyncio.create_task(self._publish_again(connection, batch, cut))
            try:
                moved += await asyncio.shield(step)
            except asyncio.CancelledError:
                # What is published and not finished would come twice.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.timeout):
                        await asyncio.gather(step, return_exceptions=True)
                raise
            if not batch:
                kept, _ = await self._look(node)
                if not kept["depth"] + kept["in_flight_count"] + kept["deferred_count"]:
                    await self._nodes.command(node, "/channel/delete", topic=self._topic, channel=KEPT)
                    _log.info("topic %s: %d messages kept for its first group are moved to it", self._topic, moved)
                    return True
        return False

    async def _publish_again(self, connection: Connection, batch: list[Message], cut: int) -> int:
        old = [message.body for message in batch if message.timestamp < cut]
        await asyncio.gather(*(connection.ask(protocol.publish(self._topic, [body]), self._topic) for body in old))
        connection.send(b"".join(protocol.finish(message.id) for message in batch))
        return len(old)

    async def _leave(self, connection: Connection, came: asyncio.Queue[list[Message]]) -> None:
        """Hand back what came and was not moved: nsqd keeps what is in flight although the connection ends."""
        with contextlib.suppress(BusError, TimeoutError):
            async with asyncio.timeout(self._options.timeout):
                await connection.ask(protocol.close())
                while not came.empty():
                    connection.send(b"".join(protocol.requeue(message.id) for message in came.get_nowait()))
                await connection.drain()
        await connection.close()

    async def _look(self, node: Address) -> tuple[dict[str, int], int]:
        """The channel of what is kept, and the clock of its nsqd in whole seconds. Raises UnreachableError."""
        found, now = await self._nodes.look(node, self._topic)
        for topic in found:
            for channel in topic["channels"]:
                if channel["channel_name"] == KEPT:
                    return channel, now
        raise UnreachableError(f"topic {self._topic}: the channel {KEPT} was deleted")
