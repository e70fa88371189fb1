"""A TCP proxy on loopback that breaks connections in the ways networks do, on command.

It stands between a client and a server on this machine, and goes nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Direction", "Proxy"]

#: Bytes forwarded at a time: small, so that a slow link is slow evenly.
_PIECE = 16 * 1024
_LOOPBACK = "127.0.0.1"
Returned = TypeVar("Returned")


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(slots=True)
class _Weather:
    """What happens to bytes that go one way."""

    flowing: asyncio.Event
    #: Seconds each piece is late.
    delay: float = 0.0
    #: Bytes a second; None = as fast as it goes.
    rate: float | None = None
    #: Whether bytes vanish instead of arriving.
    lossy: bool = False


class Proxy:
    """Forwards connections to ``port``; ``with`` starts it. All methods may be called from any thread.

    A connection whose bytes vanished is never whole again: it is cut when the weather clears.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._weather: dict[Direction, _Weather] = {}
        self._links: set[asyncio.Task[None]] = set()
        self._refusing = False
        #: Where clients connect to.
        self.port = 0
        #: Connections made so far.
        self.accepted = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """End every connection at once, as a reset does. New ones are taken."""
        self._call(self._cut())

    def refuse(self) -> None:
        """Cut, and end each new connection at once, until :meth:`heal`."""
        self._refusing = True
        self.cut()

    def freeze(self, *directions: Direction) -> None:
        """Hold bytes that go these ways, by default both, until :meth:`heal`: connections stay open and half dead."""
        self._call(self._set(directions, "freeze", None))

    def lose(self, *directions: Direction) -> None:
        """Have bytes that go these ways vanish, until :meth:`heal`, which cuts the connections concerned."""
        self._call(self._set(directions, "lossy", True))

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Have bytes that go these ways come later."""
        self._call(self._set(directions, "delay", seconds))

    def throttle(self, bytes_per_second: float, *directions: Direction) -> None:
        """Let no more bytes go these ways."""
        self._call(self._set(directions, "rate", bytes_per_second))

    def heal(self) -> None:
        """Forward everything again, as fast as it goes."""
        self._call(self._heal())

    def _call(self, work: Coroutine[Any, Any, Returned]) -> Returned:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        self._weather = {direction: _Weather(asyncio.Event()) for direction in Direction}
        for weather in self._weather.values():
            weather.flowing.set()
        self._server = await asyncio.start_server(self._accept, _LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _set(self, directions: tuple[Direction, ...], what: str, value: Any) -> None:
        for direction in directions or tuple(Direction):
            if what == "freeze":
                self._weather[direction].flowing.clear()
            else:
                setattr(self._weather[direction], what, value)

    async def _heal(self) -> None:
        self._refusing = False
        if any(weather.lossy for weather in self._weather.values()):
            await self._cut()
        for weather in self._weather.values():
            weather.delay, weather.rate, weather.lossy = 0.0, None, False
            weather.flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        me = asyncio.current_task()
        assert me is not None
        self._links.add(me)
        ends = [writer]
        try:
            if self._refusing:
                return
            there, back = await asyncio.open_connection(_LOOPBACK, self._target)
            ends.append(back)
            ways = [
                asyncio.create_task(self._forward(reader, back, Direction.TO_SERVER)),
                asyncio.create_task(self._forward(there, writer, Direction.TO_CLIENT)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            # The server is not there, or we were told to cut.
            pass
        finally:
            for end in ends:
                end.transport.abort()
            self._links.discard(me)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        weather = self._weather[direction]
        with contextlib.suppress(OSError):
            while piece := await self._read(reader, direction):
                await weather.flowing.wait()
                if weather.delay:
                    await asyncio.sleep(weather.delay)
                if weather.rate is not None:
                    await asyncio.sleep(len(piece) / weather.rate)
                if not weather.lossy:
                    writer.write(piece)
                    await writer.drain()

    async def _read(self, reader: asyncio.StreamReader, direction: Direction) -> bytes:
        """What to forward next; nothing at the end."""
        return await reader.read(_PIECE)
