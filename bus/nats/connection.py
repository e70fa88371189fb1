"""One connection to NATS: reconnecting for ever, and requests of which many are under way at once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nats.aio.client import Client, Server
from nats.aio.msg import Msg

from bus.errors import BusError, ClosedError, UnauthorisedError, UnconfirmedError, UnreachableError
from bus.nats.trouble import api_error, mapped

__all__ = ["Connection", "Request"]

#: Requests, and their bytes, under way in one call.
_WINDOW = 512
_BYTES = 4 * 1024**2
#: Longest pause between two attempts to reconnect.
_PAUSE = 5.0


class Request(NamedTuple):
    """What is sent and must be answered."""

    subject: str
    payload: bytes = b""
    headers: dict[str, str] | None = None


class Connection:
    """The client library, wrapped: nothing of its errors leaves, and it prints nothing."""

    def __init__(self, addresses: list[str], credentials: dict[str, Any], timeout: float) -> None:
        self.where = ", ".join(address.removeprefix("nats://") for address in addresses)
        self.timeout = timeout
        self.trouble: BaseException | None = None
        #: Called after every reconnection: what the server knew of our pulls is gone.
        self.reconnected: set[Callable[[], None]] = set()
        self.client = Client()
        self._addresses = addresses
        self._credentials = credentials
        self._failed: asyncio.Future[BaseException] | None = None
        self._failures = 0
        self._inbox = ""
        self._next = 0
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._up = asyncio.Event()

    async def open(self) -> None:
        """Connect. Raises UnreachableError, UnauthorisedError, BusURLError."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        connecting = loop.create_task(self._connect())
        both: set[asyncio.Future[Any]] = {connecting, self._failed}
        await asyncio.wait(both, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done() and connecting.exception() is None:
            self._failed = None
            self._up.set()
            self._inbox = self.client.new_inbox()
            await self.client.subscribe(f"{self._inbox}.*", cb=self._answered)
            return
        connecting.cancel()
        await asyncio.wait({connecting})
        error = None if connecting.cancelled() else connecting.exception()
        error = error or self.trouble or TimeoutError(f"no answer within {self.timeout:g} s")
        await self.close()
        raise mapped(error, f"nats at {self.where} cannot be used")

    async def _connect(self) -> None:
        await self.client.connect(
            self._addresses,
            name="taskbus",
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]
            reconnect_to_server_handler=self._choose,
            ping_interval=10,
            max_outstanding_pings=2,
            connect_timeout=max(1, int(self.timeout)),
            **self._credentials,
        )

    def _choose(self, servers: list[Server], info: dict[str, Any]) -> tuple[Server | None, float]:
        self._failures += 1
        server = min(servers, key=lambda each: (each.reconnects, random.random()))
        return server, random.uniform(0.5, 1.0) * min(_PAUSE, 0.1 * 2 ** min(self._failures, 10))

    async def _on_error(self, error: Exception) -> None:
        self.trouble = error
        if self._failed is not None and not self._failed.done():
            self._failures += 1
            if self._failures >= len(self._addresses) or isinstance(mapped(error, ""), UnauthorisedError):
                self._failed.set_result(error)

    async def _on_disconnected(self) -> None:
        self._up.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(UnconfirmedError(f"nats at {self.where}: the connection broke; try again"))

    async def _on_reconnected(self) -> None:
        self._failures = 0
        self.trouble = None
        self._up.set()
        for call in list(self.reconnected):
            call()

    async def _answered(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(message)

    async def request(self, requests: Sequence[Request], doing: str, topic: str | None = None) -> list[Msg]:
        """Send all in order, and return the answers when the last has come.

        Raises:
            UnreachableError, UnauthorisedError, FullError, ClosedError: some may have been done.
            UnconfirmedError: no answer in time; they may have been done.
        """
        answers: list[Msg] = []
        start = 0
        while start < len(requests):
            end, size = start, 0
            while end < len(requests) and end - start < _WINDOW and (size < _BYTES or end == start):
                size += len(requests[end].payload)
                end += 1
            answers += await self._together(requests[start:end], doing, topic)
            start = end
        return answers

    async def _together(self, requests: Sequence[Request], doing: str, topic: str | None) -> list[Msg]:
        if self.client.is_closed:
            raise ClosedError("the nats bus is closed")
        loop = asyncio.get_running_loop()
        tokens: list[str] = []
        futures: list[asyncio.Future[Msg]] = []
        try:
            async with asyncio.timeout(self.timeout):
                await self._up.wait()
                for subject, payload, headers in requests:
                    self._next += 1
                    token = str(self._next)
                    tokens.append(token)
                    self._waiting[token] = future = loop.create_future()
                    futures.append(future)
                    await self.client.publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
                for future in futures:
                    await future
        except TimeoutError as error:
            text = f"{doing}: nats at {self.where} did not answer within {self.timeout:g} s"
            kind: type[BusError] = UnconfirmedError if tokens else UnreachableError
            raise kind(text, topic=topic) from error
        except Exception as error:  # whatever the client library raises is mapped, and nothing else runs here
            raise mapped(error, doing, topic) from error
        finally:
            for token in tokens:
                self._waiting.pop(token, None)
            for future in futures:
                if future.done() and not future.cancelled():
                    future.exception()
        return [future.result() for future in futures]

    async def api(self, subject: str, body: dict[str, Any], doing: str, topic: str | None = None) -> dict[str, Any]:
        """Ask JetStream's API. Raises as :meth:`request`, and NoSuchTopicError or UnsupportedError."""
        payload = json.dumps(body).encode() if body else b""
        (answer,) = await self.request([Request(f"$JS.API.{subject}", payload)], doing, topic)
        return self.read(answer, doing, topic)

    def read(self, answer: Msg, doing: str, topic: str | None = None) -> dict[str, Any]:
        """The JSON of an answer of JetStream. Raises the error it tells."""
        if not answer.data:
            raise UnreachableError(f"{doing}: nats at {self.where} has no JetStream for this now", topic=topic)
        found: dict[str, Any] = json.loads(answer.data)
        if error := found.get("error"):
            raise api_error(error, doing, topic)
        return found

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._up.is_set() and self.client.is_connected

    async def close(self) -> None:
        """Let go. Idempotent."""
        try:
            await self.client.close()
        except Exception as error:  # closing what is broken must not fail: the client library may raise anything
            self.trouble = error
        self._up.clear()
        me = asyncio.current_task()
        left = [t for t in asyncio.all_tasks() if t is not me and "nats/aio" in _file(t)]
        if left and self._ours(left):
            await asyncio.wait(self._ours(left), timeout=1.0)

    def _ours(self, tasks: list[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
        mine = {id(self.client), *(id(sub) for sub in self.client._subs.values())}
        return [task for task in tasks if id(_owner(task)) in mine]


def _file(task: asyncio.Task[Any]) -> str:
    return getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", "")


def _owner(task: asyncio.Task[Any]) -> object:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get("self") if frame is not None else None
