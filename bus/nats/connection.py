"""A connection that is made again for ever, its subscriptions, and requests of which many are under way at once."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bus.errors import BusError, ClosedError, UnconfirmedError, UnreachableError, UnsupportedError
from bus.nats import wire
from bus.nats.link import Address, Link, Security
from bus.nats.trouble import api_error

__all__ = ["Answer", "Connection", "Handler", "Request"]

_log = logging.getLogger("taskbus.bus")
#: Requests, and their bytes, sent before the answers to earlier ones are waited for. Two such portions are under way,
#: and on a slow link too they must be answered within the time-out.
_PORTION = 512
_BYTES = 256 * 1024
#: The first and the longest pause between two attempts to connect again, in seconds.
_FIRST, _LONGEST = 0.05, 5.0
#: How often a question is asked within the time-out.
_LOOKS = 5
_SUBJECT = re.compile(r'"([^"]+)"')

#: What is called with each message of a subscription: subject, reply subject, header block, body.
Handler = Callable[[bytes, bytes, bytes, bytes], None]


class Request(NamedTuple):
    """What is sent and must be answered."""

    subject: bytes
    body: bytes = b""
    head: bytes = b""


class Answer(NamedTuple):
    """What came back."""

    head: bytes
    body: bytes

    @property
    def status(self) -> bytes:
        """``503`` if nobody is there to answer, empty for an answer."""
        return wire.status(self.head)


class _Portion:
    """Requests under way together, and one future for all of them."""

    __slots__ = ("answers", "done", "left", "requests", "tokens")

    def __init__(self, requests: Sequence[Request], tokens: range, done: asyncio.Future[None]) -> None:
        self.requests = requests
        self.tokens = tokens
        self.done = done
        self.left = len(requests)
        self.answers: list[Answer] = [Answer(b"", b"")] * len(requests)


class Connection:
    """All traffic of one bus, over one link at a time to one of the servers of the URL."""

    def __init__(self, addresses: Sequence[Address], security: Security, timeout: float, inbox: str) -> None:
        self.where = ", ".join(map(str, addresses))
        self.timeout = timeout
        #: What keeps us from being connected.
        self.trouble: BusError | None = None
        #: Called after every reconnection: what the server knew of our pulls is gone.
        self.reconnected: set[Callable[[], None]] = set()
        self._addresses = list(addresses)
        self._security = security
        self._inbox = inbox
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._reconnecting: asyncio.Task[None] | None = None
        self._attempts = 0
        self._since = 0.0
        self._closed = False
        self._handlers: dict[int, tuple[bytes, Handler]] = {}
        self._number = 0
        self._answers = b""
        #: Why no answer can reach us, though we are connected.
        self._unheard: BusError | None = None
        self._token = 0
        self._waiting: dict[bytes, _Portion] = {}

    async def open(self) -> None:
        """Connect to one of the servers. Raises UnreachableError, UnauthorisedError, BusURLError."""
        random.shuffle(self._addresses)
        refusals = []
        for address in self._addresses:
            try:
                self._adopt(await self._dial(address))
            except BusError as error:
                refusals.append(error)
            else:
                break
        else:
            raise next((error for error in refusals if not error.transient), refusals[0])
        try:
            prefix = self.new_inbox()
            self._answers = prefix + b"."
            self.subscribe(prefix + b".*", self._answered)
            await self._heard()
        except BaseException:
            await self.disconnect()
            raise

    async def _heard(self) -> None:
        """See that the server lets us have its answers. Raises UnauthorisedError if not, UnreachableError."""
        if self._link is not None:
            try:
                async with asyncio.timeout(self.timeout):
                    await self._link.confirm()
            except TimeoutError as error:
                raise UnreachableError(f"nats at {self.where} did not answer within {self.timeout:g} s") from error
        if self._unheard is not None:
            raise self._unheard

    async def _dial(self, address: Address) -> Link:
        link = Link(address, self._received, self._lost, self._refused)
        await link.connect(self._security, self.timeout)
        return link

    def _adopt(self, link: Link) -> None:
        self._link = link
        self._since = asyncio.get_running_loop().time()
        self.trouble = self._unheard = None
        for number, (subject, _) in self._handlers.items():
            link.write(wire.subscribe(subject, number))
        self._up.set()

    def _lost(self, link: Link) -> None:
        if link is not self._link or self._closed:
            return
        self._up.clear()
        self.trouble = link.trouble or UnreachableError(f"nats at {link.address} closed the connection")
        _log.warning("%s; connecting again", self.trouble, extra={"event": "bus-lost"})
        self._fail(self._waiting.values(), UnconfirmedError(f"{self.trouble}; it may have been done"))
        loop = asyncio.get_running_loop()
        if loop.time() - self._since > _LONGEST:
            # A server that takes us in and throws us out again is asked ever more slowly too.
            self._attempts = 0
        self._reconnecting = loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Try one server after the other, ever more slowly."""
        while not self._closed:
            pause = min(_LONGEST, _FIRST * 2 ** min(self._attempts, 10))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            address = self._addresses[self._attempts % len(self._addresses)]
            self._attempts += 1
            try:
                link = await self._dial(address)
            except BusError as error:
                if str(error) != str(self.trouble):
                    _log.warning("%s; trying again", error, extra={"event": "bus-unreachable"})
                self.trouble = error
                continue
            if not link.open:
                continue
            self._adopt(link)
            _log.info("connected to nats at %s again", address, extra={"event": "bus-back"})
            for call in list(self.reconnected):
                call()
            return

    def _refused(self, error: BusError, text: str) -> None:
        """The server does not permit something: tell whoever waits for it, else nobody would until the time is out."""
        found = _SUBJECT.search(text)
        subject = found[1].encode() if found else b""
        if subject == self._answers + b"*":
            self._unheard = error
            self._fail(self._waiting.values(), error)
            return
        concerned = [
            portion
            for portion in dict.fromkeys(self._waiting.values())
            if any(request.subject == subject for request in portion.requests)
        ]
        if not concerned:
            _log.warning("%s", error, extra={"event": "bus-refused"})
        self._fail(concerned, error)

    def _fail(self, portions: Any, error: BusError) -> None:
        for portion in dict.fromkeys(portions):
            if not portion.done.done():
                portion.done.set_exception(error)

    # Subscriptions.

    def new_inbox(self) -> bytes:
        """A subject that nobody else uses."""
        return f"{self._inbox}.{secrets.token_hex(11)}".encode()

    def subscribe(self, subject: bytes, handler: Handler) -> int:
        """Have ``handler`` called for what is sent to ``subject``, also after reconnecting. Returns its number."""
        self._number += 1
        self._handlers[self._number] = (subject, handler)
        if self._link is not None and self.connected:
            self._link.write(wire.subscribe(subject, self._number))
        return self._number

    def unsubscribe(self, number: int) -> None:
        """End a subscription. What is on its way may still come and is dropped."""
        if self._handlers.pop(number, None) is not None and self._link is not None and self.connected:
            self._link.write(wire.unsubscribe(number))

    async def drain(self, number: int) -> None:
        """End a subscription and wait until all that was on its way has been handled. Raises BusError."""
        link = self._link
        if number not in self._handlers or link is None or not self.connected:
            self._handlers.pop(number, None)
            return
        link.write(wire.unsubscribe(number))
        try:
            async with asyncio.timeout(self.timeout):
                await link.confirm()
        except TimeoutError as error:
            raise UnconfirmedError(f"nats at {self.where} did not answer within {self.timeout:g} s") from error
        finally:
            self._handlers.pop(number, None)

    def _received(self, number: int, subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
        found = self._handlers.get(number)
        if found is not None:
            found[1](subject, reply, head, body)

    # Sending.

    def send(self, data: bytes) -> None:
        """Send commands that need no answer; without a connection they are dropped."""
        if self._link is not None and self.connected:
            self._link.write(data)

    def _answered(self, subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
        token = subject[len(self._answers) :]
        portion = self._waiting.pop(token, None)
        if portion is None:
            return
        portion.answers[int(token) - portion.tokens.start] = Answer(head, body)
        portion.left -= 1
        if not portion.left and not portion.done.done():
            portion.done.set_result(None)

    async def request(
        self, requests: Sequence[Request], doing: str, topic: str | None = None, *, before: bytes = b""
    ) -> list[Answer]:
        """Send all in order, and return the answers when the last has come. ``before`` is sent before all of them.

        Raises:
            UnreachableError: not connected; nothing of what is left was sent.
            UnconfirmedError: no answer in time; they may have been done.
            UnauthorisedError, ClosedError: some may have been done.
        """
        answers: list[Answer] = []
        under_way: list[_Portion] = []
        start = 0
        try:
            while start < len(requests) or under_way:
                if start < len(requests):
                    end = self._portion_end(requests, start)
                    under_way.append(await self._send(requests[start:end], doing, topic, before))
                    before = b""
                    start = end
                    if len(under_way) == 1 and start < len(requests):
                        continue
                answers += await self._answers_of(under_way[0], doing, topic)
                del under_way[0]
        finally:
            for portion in under_way:
                for token in portion.tokens:
                    self._waiting.pop(b"%d" % token, None)
                if portion.done.done() and not portion.done.cancelled():
                    portion.done.exception()  # it was told by the portion before
        return answers

    @staticmethod
    def _portion_end(requests: Sequence[Request], start: int) -> int:
        end, size = start, 0
        while end < len(requests) and end - start < _PORTION and (size < _BYTES or end == start):
            size += len(requests[end].body)
            end += 1
        return end

    async def _send(self, requests: Sequence[Request], doing: str, topic: str | None, before: bytes) -> _Portion:
        link = await self._connected(doing, topic)
        tokens = range(self._token, self._token + len(requests))
        self._token = tokens.stop
        portion = _Portion(requests, tokens, asyncio.get_running_loop().create_future())
        prefix, waiting, publish = self._answers, self._waiting, wire.publish
        commands = [before]
        for number, (subject, body, head) in zip(tokens, requests, strict=True):
            token = b"%d" % number
            waiting[token] = portion
            commands.append(publish(subject, body, prefix + token, head))
        link.write(b"".join(commands))
        return portion

    async def _connected(self, doing: str, topic: str | None) -> Link:
        """The link, waited for as long as anything is."""
        try:
            async with asyncio.timeout(self.timeout):
                while not self._closed:
                    await self._up.wait()
                    if self._link is not None and self.connected:
                        await self._link.writable()
                        if self._unheard is not None:
                            raise type(self._unheard)(f"{doing}: {self._unheard}", topic=topic)
                        if self.connected:
                            return self._link
        except TimeoutError as error:
            raise self._not_connected(doing, topic) from error
        raise ClosedError("the nats bus is closed")

    def _not_connected(self, doing: str, topic: str | None) -> BusError:
        why = f": {self.trouble}" if self.trouble else ""
        return UnreachableError(f"{doing}: nats at {self.where} is not connected{why}", topic=topic)

    async def _answers_of(self, portion: _Portion, doing: str, topic: str | None) -> list[Answer]:
        try:
            async with asyncio.timeout(self.timeout):
                await portion.done
        except TimeoutError as error:
            text = f"{doing}: nats at {self.where} did not answer within {self.timeout:g} s; it may have been done"
            raise UnconfirmedError(text, topic=topic) from error
        except BusError as error:
            # Several may wait for the same trouble: each gets an error of its own, with its own doing.
            raise type(error)(f"{doing}: {error}", topic=topic) from error
        return portion.answers

    async def look(self, subject: str, body: dict[str, Any], doing: str, topic: str | None = None) -> dict[str, Any]:
        """As :meth:`api`, for what may be asked again: a cluster in search of a leader answers nothing at all."""
        deadline = asyncio.get_running_loop().time() + self.timeout
        while True:
            try:
                async with asyncio.timeout(self.timeout / _LOOKS):
                    return await self.api(subject, body, doing, topic)
            except TimeoutError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    if not self.connected:
                        raise self._not_connected(doing, topic) from error
                    text = f"{doing}: nats at {self.where} did not answer within {self.timeout:g} s"
                    raise UnreachableError(text, topic=topic) from error

    async def api(self, subject: str, body: dict[str, Any], doing: str, topic: str | None = None) -> dict[str, Any]:
        """Ask JetStream's API. Raises as :meth:`request`, and NoSuchTopicError, FullError or UnsupportedError."""
        payload = json.dumps(body).encode() if body else b""
        (answer,) = await self.request([Request(b"$JS.API." + subject.encode(), payload)], doing, topic)
        if answer.status:
            raise UnsupportedError(
                f"{doing}: nats at {self.where} has no JetStream now: start the server with -js or jetstream {{}}",
                topic=topic,
            )
        return self.read(answer, doing, topic)

    def read(self, answer: Answer, doing: str, topic: str | None = None) -> dict[str, Any]:
        """The JSON of an answer of JetStream. Raises the error it tells."""
        if answer.status:
            raise UnreachableError(f"{doing}: nats at {self.where} stores nothing under this subject now", topic=topic)
        found: dict[str, Any] = json.loads(answer.body)
        if error := found.get("error"):
            raise api_error(error, doing, topic)
        return found

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._link is not None and self._link.open

    @property
    def max_payload(self) -> int:
        """The most bytes the server takes in one message, headers included."""
        told = self._link.info.get("max_payload") if self._link is not None else None
        return told if isinstance(told, int) else 0

    async def close(self) -> None:
        """Let go. Idempotent."""
        self._closed = True
        self._fail(self._waiting.values(), UnconfirmedError("the nats bus was closed; it may have been done"))
        await self.disconnect()
        self._up.set()  # whoever waits for a connection learns that none will come

    async def disconnect(self) -> None:
        """End the connection, and subscriptions with it; :meth:`open` may make another."""
        link, self._link = self._link, None
        self._up.clear()
        self._handlers.clear()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait([self._reconnecting])
        if link is not None:
            await link.close()
