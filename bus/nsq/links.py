"""The subscribed connections of one consumer: one to each nsqd, for ever made anew."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable

from bus.contract import Delivery
from bus.errors import BusError
from bus.nsq import protocol
from bus.nsq.connection import Connection
from bus.nsq.keeping import Keeper
from bus.nsq.nodes import EPHEMERAL, Nodes
from bus.nsq.options import Address, NsqOptions
from bus.nsq.pace import Pace
from bus.nsq.protocol import Message
from bus.nsq.trouble import refused

__all__ = ["Held", "Link", "Links"]

_log = logging.getLogger("taskbus.bus")
#: Seconds before the first and at most before any further attempt to connect again.
_FIRST, _LONGEST = 0.1, 5.0


class Held(Delivery):
    """One message in our hands. ``state`` is ``held``, ``settled`` or ``lost``; times are the loop's."""

    __slots__ = ("arrived", "deadline", "link", "name", "state", "warned")

    def __init__(self, link: Link, message: Message, id: str, now: float, deadline: float) -> None:
        self.body = message.body
        self.id = id
        self.attempt = message.attempts
        self.key = None
        self.history = ()
        self.handle = None
        self.link = link
        #: What nsqd calls it.
        self.name = message.id
        self.arrived = now
        self.deadline = deadline
        self.state = "held"
        self.warned = False


class Link:
    """A subscribed connection and what came over it. The connection is open."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pace = Pace(connection.round_trip, connection.max_ready)
        self.held: dict[bytes, Held] = {}
        #: Settled and not known to be refused; kept only while a fence is awaited.
        self.settling: dict[bytes, Held] = {}
        self.ready = 0
        self._soonest = float("inf")

    def add(self, messages: list[Message], now: float, lease: float) -> list[Held]:
        """What just came is held from now on."""
        # Two nsqds of one host make the same ids unless they were given different --node-id.
        mine, at, deadline = self.held, f"@{self.connection.where}", now + lease
        added: list[Held] = []
        for message in messages:
            name = message.id
            held = Held(self, message, name.decode("ascii", "replace") + at, now, deadline)
            if name in mine:
                mine.pop(name).state = "lost"
            mine[name] = held
            added.append(held)
        self._soonest = min(self._soonest, deadline)
        if self.ready:
            self.pace.came(len(messages), self.ready - len(mine))
        return added

    def in_flight(self, now: float) -> int:
        """How many nsqd counts as in flight here: what is held and has not run out."""
        if now < self._soonest:
            return len(self.held)
        current = [held.deadline for held in self.held.values() if held.deadline > now]
        self._soonest = min(current, default=float("inf")) if len(current) == len(self.held) else now
        return len(current)

    def permit(self, more: int, now: float) -> None:
        """Let nsqd send so many, or fewer if few are expected."""
        # Its count includes what is in flight.
        held = self.in_flight(now)
        count = min(held + min(more, self.pace.quota), self.connection.max_ready) if more else 0
        if count != self.ready:
            # What it may not send now anyway it need not be told at once: mostly something else goes with it soon.
            urgent = count > 0 or self.ready > held
            self.ready = count
            self.connection.send(protocol.ready(count), urgent=urgent)

    def refuse(self, id: bytes) -> None:
        """nsqd says that this message is not ours."""
        held = self.held.pop(id, None) or self.settling.pop(id, None)
        if held is None:
            _log.warning(
                "nsqd %s: an acknowledgement came too late, somebody else has the message",
                self.connection.where,
                extra={"event": "late-settlement"},
            )
        else:
            held.state = "lost"

    def lose_all(self) -> None:
        for held in (*self.held.values(), *self.settling.values()):
            held.state = "lost"
        self.held.clear()


class Links:
    """Keeps a link to every nsqd there is. ``changed`` is called when one came or went."""

    def __init__(
        self,
        topic: str,
        channel: str,
        nodes: Nodes,
        options: NsqOptions,
        tls: ssl.SSLContext | None,
        arrived: Callable[[Link, list[Message]], None],
        changed: Callable[[], None],
    ) -> None:
        self.live: list[Link] = []
        self.trouble: BusError | None = None
        self._topic = topic
        self._channel = channel
        self._nodes = nodes
        self._options = options
        self._tls = tls
        self._arrived = arrived
        self._changed = changed
        self._wanted: frozenset[Address] = frozenset()
        self._keepers: dict[Address, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._listens = channel.endswith(EPHEMERAL)
        self._keeper = Keeper(topic, nodes, options, tls)
        self._movers: dict[Address, asyncio.Task[None]] = {}

    @property
    def away(self) -> list[str]:
        """The nsqds that are wanted and not connected."""
        live = {link.connection.address for link in self.live}
        return sorted(f"{host}:{port}" for host, port in self._wanted - live)

    async def start(self) -> None:
        """Subscribe at every nsqd that answers now; the others follow. Raises if none does."""
        self._wanted = frozenset(await self._nodes.of(self._topic))
        tried = await asyncio.gather(*(self._connect(address) for address in self._wanted), return_exceptions=True)
        errors = [error for error in tried if isinstance(error, BaseException)]
        for error in errors:
            if not isinstance(error, BusError) or refused(error):
                await self._drop(tried)
                raise error
        if errors and len(errors) == len(tried):
            raise errors[0]
        for address, link in zip(self._wanted, tried, strict=True):
            self._keep(address, link if isinstance(link, Link) else None)
        if self._nodes.changing:
            self._watch = asyncio.create_task(self._follow(), name="nsq nodes")

    async def _drop(self, tried: list[Link | BaseException]) -> None:
        for link in tried:
            if isinstance(link, Link):
                self.live.remove(link)
                await link.connection.close()

    def _keep(self, address: Address, link: Link | None = None) -> None:
        if address not in self._keepers:
            self._keepers[address] = asyncio.create_task(self._stay(address, link), name=f"nsq keep {address}")

    async def _connect(self, address: Address) -> Link:
        if self._listens:
            await self._keeper.keep(address)
        connection = Connection(address, self._options, self._tls)
        await connection.open()
        link = Link(connection)
        connection.on_messages = lambda messages: self._arrived(link, messages)
        connection.on_refused = link.refuse
        try:
            async with asyncio.timeout(self._options.timeout):
                await connection.ask(protocol.subscribe(self._topic, self._channel), self._topic)
        except BaseException as error:
            await connection.close()
            if isinstance(error, TimeoutError):
                raise connection.trouble or error from None
            raise
        self.live.append(link)
        self._changed()
        if not self._listens and (address not in self._movers or self._movers[address].done()):
            self._movers[address] = asyncio.create_task(self._keeper.hand_over(address), name=f"nsq move {address}")
        return link

    async def _stay(self, address: Address, link: Link | None) -> None:
        """Be connected to one nsqd for as long as it is wanted."""
        pause = _FIRST
        while True:
            if link is not None:
                pause = _FIRST
                await link.connection.closed.wait()
                self.trouble = link.connection.trouble
                link.lose_all()
                self.live.remove(link)
                self._changed()
                await link.connection.close()
                _log.warning("%s; connecting again", self.trouble, extra={"event": "bus-lost"})
            if address not in self._wanted:
                del self._keepers[address]
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, _LONGEST)
            try:
                link = await self._connect(address)
            except BusError as error:
                link, self.trouble = None, error

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._options.poll * random.uniform(0.8, 1.2))
            try:
                self._wanted = frozenset(await self._nodes.of(self._topic))
            except BusError as error:
                self.trouble = error
                continue
            for address in self._wanted:
                self._keep(address)

    async def stop(self) -> list[Link]:
        """Make no link any more; the live ones are the caller's to close."""
        tasks = [*self._keepers.values(), *self._movers.values(), *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._keepers.clear()
        live, self.live = self.live, []
        return live
