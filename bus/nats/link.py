"""One connection to one server: from dialling and logging in until it breaks. It is not used again after that.

https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from bus.errors import BusError, BusURLError, UnreachableError
from bus.nats import wire
from bus.nats.login import Login
from bus.nats.trouble import mapped, server_error

__all__ = ["Address", "Link", "Security"]


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Security(NamedTuple):
    """Who we are, and how the connection is encrypted: not at all without ``context``."""

    login: Login
    context: ssl.SSLContext | None = None
    #: Whether TLS begins at once and not after the server has said who it is.
    handshake_first: bool = False


class Link(asyncio.Protocol):
    """A connection. ``lost`` is called once it is gone, however that happened; then :attr:`trouble` may say why.

    ``refused`` is called with what the server complains about without ending the connection.
    """

    def __init__(
        self,
        address: Address,
        received: wire.Received,
        lost: Callable[[Link], None],
        refused: Callable[[BusError, str], None],
    ) -> None:
        self.address = address
        #: What the server said of itself.
        self.info: dict[str, Any] = {}
        self.trouble: BusError | None = None
        self.open = False
        self._lost, self._refused = lost, refused
        self._parser = wire.Parser(received, self._line)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._pongs: deque[asyncio.Future[None]] = deque()
        self._out: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._heard = False
        self._silent = 0
        self._tick: asyncio.TimerHandle | None = None

    async def connect(self, security: Security, timeout: float) -> None:
        """Dial, encrypt and log in, within ``timeout`` seconds.

        Raises:
            UnreachableError, UnauthorisedError: the server is not there, or does not let us in.
            BusURLError: what listens there is no NATS server, or is encrypted otherwise than the URL says.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._connect(security)
        except BaseException as error:
            self.abort()
            if isinstance(error, BusError) or not isinstance(error, Exception):
                raise
            if isinstance(error, TimeoutError):
                error = TimeoutError(f"no answer within {timeout:g} s")
            raise self.trouble or mapped(error, f"nats at {self.address}") from error
        self.open = True
        self._watch(timeout)

    async def _connect(self, security: Security) -> None:
        host, port = self.address
        first = security.context if security.handshake_first else None
        await self._loop.create_connection(lambda: self, host, port, ssl=first)
        await self._greeted
        encrypted = first is not None
        if security.context is not None and not encrypted:
            if not (self.info.get("tls_required") or self.info.get("tls_available")):
                raise BusURLError(f"nats at {self.address} does not offer TLS: leave tls, ca, cert and key out")
            transport = cast(asyncio.Transport, self._transport)
            upgraded = await self._loop.start_tls(transport, self, security.context, server_hostname=host)
            self._transport = cast(asyncio.Transport, upgraded)
        elif self.info.get("tls_required") and not encrypted:
            raise BusURLError(f"nats at {self.address} requires TLS: add tls=true, and ca=FILE for a private authority")
        options = {
            "verbose": False,
            "pedantic": False,
            "lang": "python",
            "version": "taskbus",
            "name": "taskbus",
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            **security.login.answer(self.info.get("nonce", "")),
        }
        self.write(b"CONNECT %b\r\n" % json.dumps(options).encode())
        await self.confirm()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._parser.feed(data)
        except ValueError as error:
            self.trouble = UnreachableError(f"nats at {self.address} sent what is not the protocol: {error}")
            self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self.open = self.open, False
        if self.trouble is None and exc is not None:
            self.trouble = mapped(exc, f"nats at {self.address}")
        gone = self.trouble or UnreachableError(f"nats at {self.address} closed the connection")
        for waiting in (self._greeted, *self._pongs):
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # nobody need be waiting any more
        self._out.clear()
        self._writable.set()
        self._gone.set()
        if self._tick is not None:
            self._tick.cancel()
        if was_open:
            self._lost(self)

    def _line(self, line: bytes) -> None:
        if line == b"PING":
            self.write(b"PONG\r\n")
        elif line == b"PONG":
            if self._pongs and not (pong := self._pongs.popleft()).done():
                pong.set_result(None)
        elif line.startswith(b"INFO "):
            self.info = _info(line[5:])
            if not self._greeted.done():
                self._greeted.set_result(None)
        elif line.startswith(b"-ERR"):
            self._complaint(line[4:].decode(errors="replace").strip(" '"))
        elif line != b"+OK":
            if not self._greeted.done():
                self.trouble = BusURLError(f"what listens at {self.address} is no NATS server: it sent {line[:40]!r}")
                self.abort()
                return
            raise ValueError(f"it sent {line[:40]!r}")

    def _complaint(self, text: str) -> None:
        error = server_error(text, f"nats at {self.address}")
        if text.lower().startswith("permissions violation"):
            self._refused(error, text)
        else:
            # The server closes the connection after every other complaint.
            self.trouble = error

    # What the bus calls.

    def write(self, data: bytes) -> None:
        """Send this, together with all else that is sent in this turn of the event loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    async def writable(self) -> None:
        """Wait until what was written before has mostly left."""
        await self._writable.wait()

    async def confirm(self) -> None:
        """Wait until the server has seen everything that was written so far. Raises BusError if the link breaks."""
        pong = self._loop.create_future()
        self._pongs.append(pong)
        self.write(wire.CONFIRM)
        await pong

    def _watch(self, timeout: float) -> None:
        """After half a ``timeout`` of silence ask whether the server is there; after another whole one, give it up.

        Turns of this event loop are counted, not time: a process that stood still has not listened.
        """
        if self._heard:
            self._heard, self._silent = False, 0
        else:
            self._silent += 1
            if self._silent == 1:
                self._pongs.append(self._loop.create_future())
                self.write(wire.CONFIRM)
            elif self._silent >= 3:
                self.trouble = UnreachableError(f"nats at {self.address} has not answered for {1.5 * timeout:g} s")
                self.abort()
                return
        self._tick = self._loop.call_later(timeout / 2, self._watch, timeout)

    def abort(self) -> None:
        """Break off now."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Send what was written, break off, and wait until that is done. Idempotent."""
        if self._transport is None:
            return
        self._flush()
        self._transport.close()
        try:
            async with asyncio.timeout(1.0):
                await self._gone.wait()
        except TimeoutError:
            self._transport.abort()
            await self._gone.wait()


def _info(text: bytes) -> dict[str, Any]:
    """What a server says of itself. Raises ValueError."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("an INFO nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("an INFO that is no object")
    return found
