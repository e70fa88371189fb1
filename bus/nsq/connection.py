"""One TCP connection to one nsqd."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from bus.errors import BusError, BusURLError, UnreachableError
from bus.nsq import protocol
from bus.nsq.options import Address, NsqOptions
from bus.nsq.protocol import Error, Frame, Frames, Message, NsqProtocolError
from bus.nsq.trouble import explain, unreachable
from bus.units import format_duration

__all__ = ["Connection"]

_HEARTBEAT = b"_heartbeat_"
_CHUNK = 256 * 1024
#: Seconds for which a command that is not urgent waits for another to go with.
_MOMENT = 0.001
#: Milliseconds nsqd may wait for more messages before it sends what it has: the least it permits by default.
_OUTPUT_BUFFER = 25
#: Errors that answer a settling command; each names the message, and the connection goes on.
_SETTLING = (b"E_FIN_FAILED", b"E_REQ_FAILED", b"E_TOUCH_FAILED")


class Connection:
    """Commands go out in order, coalesced per turn of the loop; answers come back in order.

    ``on_messages`` is given the messages of each read, ``on_refused`` the id of each message that is no longer ours.
    """

    def __init__(self, address: Address, options: NsqOptions, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self.where = f"{address[0]}:{address[1]}"
        self.closed = asyncio.Event()
        self.trouble: BusError | None = None
        self.max_ready = 2500
        self.ceiling = options.max_lease
        #: Seconds an answer took.
        self.round_trip = 0.0
        self.on_messages: Callable[[list[Message]], None] = lambda messages: None
        self.on_refused: Callable[[bytes], None] = lambda id: None
        self._options = options
        self._tls = tls
        self._answers: deque[tuple[asyncio.Future[bytes], str | None]] = deque()
        self._fences: dict[bytes, asyncio.Future[None]] = {}
        self._numbers = itertools.count()
        self._frames = Frames()
        self._out: list[bytes] = []
        self._flushing = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and introduce ourselves.

        Raises:
            UnreachableError, UnauthorisedError.
            BusURLError: an option does not fit this nsqd.
        """
        try:
            async with asyncio.timeout(self._options.timeout):
                self._reader, self._writer = await asyncio.open_connection(*self.address)
                try:
                    await self._introduce()
                except BaseException:
                    self._writer.transport.abort()
                    raise
        except ssl.SSLCertVerificationError as error:
            raise BusURLError(f"nsqd {self.where}: its certificate is not trusted: {error}; give tls_ca") from None
        except (OSError, NsqProtocolError, EOFError) as error:
            raise unreachable(error, self.where) from None
        if sock := self._writer.get_extra_info("socket"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._task = asyncio.create_task(self._read(), name=f"nsq {self.where}")

    async def _introduce(self) -> None:
        options = self._options
        wishes: dict[str, Any] = {
            "client_id": f"{socket.gethostname()}:{os.getpid()}",
            "hostname": socket.gethostname(),
            "user_agent": "taskbus",
            "feature_negotiation": True,
            "heartbeat_interval": int(options.heartbeat * 1000),
            "msg_timeout": int(options.lease * 1000),
            "output_buffer_timeout": _OUTPUT_BUFFER,
            "tls_v1": self._tls is not None,
        }
        clock = asyncio.get_running_loop().time
        asked = clock()
        self._writer.write(protocol.MAGIC_V2 + protocol.identify(json.dumps(wishes).encode()))
        answer = await self._answer()
        self.round_trip = clock() - asked
        try:
            granted = json.loads(answer)
            lease = float(granted["msg_timeout"]) / 1000
            self.ceiling = float(granted["max_msg_timeout"]) / 1000
            self.max_ready = int(granted["max_rdy_count"])
            secure = bool(granted["tls_v1"])
            secret_wanted = bool(granted.get("auth_required"))
        except (ValueError, KeyError, TypeError):
            raise NsqProtocolError(f"it answered IDENTIFY with {answer[:80]!r}") from None
        if self.ceiling < options.max_lease:
            text = format_duration(self.ceiling)
            raise BusURLError(
                f"nsqd {self.where} keeps no message in flight longer than --max-msg-timeout={text}; raise that, or "
                f"give max_lease={text} in the URL: tasks that take longer are then handed to somebody else"
            )
        if abs(lease - options.lease) > 0.001:
            raise BusURLError(f"nsqd {self.where} gives a lease of {lease:g} s where {options.lease:g} was asked for")
        if self._tls is not None:
            if not secure:
                raise BusURLError(f"nsqd {self.where} has no TLS; give it a certificate, or leave tls=true away")
            await self._writer.start_tls(self._tls, server_hostname=self.address[0])
            await self._answer()
        if options.auth_secret is not None:
            self._writer.write(protocol.auth(options.auth_secret.reveal().encode()))
            await self._answer()
        elif secret_wanted:
            raise explain(b"E_AUTH_FIRST a secret is required", self.where)

    async def _answer(self) -> bytes:
        """The answer to a step of the introduction."""
        head = await self._reader.readexactly(4)
        if head == b"HTTP":
            raise NsqProtocolError("that is an HTTP port; its TCP port, 4150 by default, is needed")
        size = int.from_bytes(head, "big")
        if not 4 <= size <= 65536:
            raise NsqProtocolError("it is no nsqd")
        (frame,) = Frames().feed(size.to_bytes(4, "big") + await self._reader.readexactly(size))
        if isinstance(frame, Error):
            raise explain(frame.data, self.where)
        if isinstance(frame, Message):
            raise NsqProtocolError("it is no nsqd")
        return frame.data

    def send(self, data: bytes, *, urgent: bool = True) -> None:
        """Send, in order, at the end of this turn of the loop, or a moment later. Does nothing once closed."""
        if self.closed.is_set():
            return
        self._out.append(data)
        if not urgent:
            asyncio.get_running_loop().call_later(_MOMENT, self.flush)
        elif not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send now: what is to come in this turn is not to be waited for."""
        if self._out and not self.closed.is_set():
            self._writer.write(b"".join(self._out))
        self._out.clear()
        self._flushing = False

    async def drain(self) -> None:
        """Wait while too much is waiting to be sent."""
        self.flush()
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def ask(self, data: bytes, topic: str | None = None) -> asyncio.Future[bytes]:
        """Send, for an answer in the order of asking. The future raises errors of the bus."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if self.closed.is_set():
            future.set_exception(self._gone())
        else:
            self.send(data)
            self._answers.append((future, topic))
        return future

    async def fence(self) -> None:
        """Wait until nsqd has done all that was sent before: touching a message that is not there is answered."""
        id = b"fence%011d" % (next(self._numbers) % 10**11)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.closed.is_set():
            raise self._gone()
        self._fences[id] = future
        self.send(protocol.touch(id))
        try:
            async with asyncio.timeout(self._options.timeout):
                await future
        except TimeoutError as error:
            self.abort(unreachable(error, self.where))
            raise self._gone() from None
        finally:
            self._fences.pop(id, None)

    async def _read(self) -> None:
        try:
            while True:
                async with asyncio.timeout(2.5 * self._options.heartbeat):
                    data = await self._reader.read(_CHUNK)
                if not data:
                    raise EOFError("it closed the connection")
                self._take_all(self._frames.feed(data))
        except (OSError, EOFError, NsqProtocolError) as error:
            self._end(unreachable(error, self.where))
        finally:
            self._end(UnreachableError(f"the connection to nsqd {self.where} was closed"))

    def _take_all(self, frames: list[Frame]) -> None:
        """In order: a refusal may be followed by the same message anew."""
        messages: list[Message] = []
        for frame in frames:
            if type(frame) is Message:
                messages.append(frame)
                continue
            if messages:
                self.on_messages(messages)
                messages = []
            self._take(frame)
        if messages:
            self.on_messages(messages)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Message):
            raise NsqProtocolError("it sent a message before a subscription")
        if isinstance(frame, Error):
            self._take_error(frame.data)
        elif frame.data == _HEARTBEAT:
            self.send(protocol.nop())
        elif self._answers:
            future, _ = self._answers.popleft()
            if not future.done():
                future.set_result(frame.data)
        else:
            raise NsqProtocolError("it answered what nobody asked")

    def _take_error(self, data: bytes) -> None:
        words = data.split(b" ", 3)
        if words[0] in _SETTLING and len(words) > 2:
            fence = self._fences.get(words[2])
            if fence is None:
                self.on_refused(words[2])
            elif not fence.done():
                fence.set_result(None)
            return
        topic = self._answers[0][1] if self._answers else None
        error = explain(data, self.where, topic)
        if self._answers:
            future, _ = self._answers.popleft()
            if not future.done():
                future.set_exception(error)
        # After any other refusal nsqd closes the connection: nothing more must go into it.
        self._end(error)

    def abort(self, trouble: BusError | None = None) -> None:
        """End the connection now."""
        self._end(trouble or UnreachableError(f"the connection to nsqd {self.where} was closed"))

    def _end(self, trouble: BusError) -> None:
        if self.closed.is_set():
            return
        self.flush()
        self.trouble = trouble
        self.closed.set()
        for future, _ in self._answers:
            if not future.done():
                future.set_exception(self._gone())
        for fence in self._fences.values():
            if not fence.done():
                fence.set_exception(self._gone())
        self._answers.clear()
        self._writer.close()

    def _gone(self) -> BusError:
        """A new error each time: one that is raised in several places would collect their tracebacks."""
        return UnreachableError(str(self.trouble or f"nsqd {self.where} is not connected"))

    async def close(self) -> None:
        """Send what is to be sent, and let go. Idempotent."""
        self.flush()
        self._end(UnreachableError(f"the connection to nsqd {self.where} was closed"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
