"""The proxy that the fault tests stand on does what it says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Direction, Proxy
from tests.helpers import wait_until


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the proxy broke it, as it should
        finally:
            writer.transport.abort()

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def _end(server: asyncio.Server) -> None:
    """Close, and end what it is still answering: what would be left is told of in the midst of another test."""
    server.close()
    answering = asyncio.all_tasks() - {asyncio.current_task()}
    for task in answering:
        task.cancel()
    await asyncio.gather(*answering, return_exceptions=True)


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    """A proxy before it."""
    with Proxy(echo) as proxy:
        yield proxy


@contextlib.contextmanager
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection through the proxy that has been used once."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(b"hello")
        assert exactly(connection, 5) == b"hello"
        connection.settimeout(0.2)
        yield connection


def exactly(connection: socket.socket, size: int) -> bytes:
    """The next ``size`` bytes."""
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        assert piece, "the connection ended"
        found += piece
    return found


def ended(connection: socket.socket) -> bool:
    """Whether the other end has gone."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_everything_arrives(proxy: Proxy) -> None:
    """A megabyte comes back as it was."""
    data = bytes(range(256)) * 4096
    with client(proxy) as connection:
        connection.settimeout(20)
        threading.Thread(target=connection.sendall, args=(data,)).start()
        assert exactly(connection, len(data)) == data


def test_cut(proxy: Proxy) -> None:
    """Connections end, and new ones work."""
    with client(proxy) as connection:
        proxy.cut()
        wait_until(lambda: ended(connection))
    with client(proxy):
        assert proxy.accepted == 2


def test_refuse(proxy: Proxy) -> None:
    """New connections end at once, until it is healed."""
    with client(proxy) as connection:
        proxy.refuse()
        wait_until(lambda: ended(connection))
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        wait_until(lambda: ended(connection))
    proxy.heal()
    with client(proxy):
        pass


def test_freeze(proxy: Proxy) -> None:
    """Bytes are held, and come when it is healed; the connection stays open."""
    with client(proxy) as connection:
        proxy.freeze()
        connection.sendall(b"held")
        with pytest.raises(TimeoutError):
            connection.recv(4)
        proxy.heal()
        connection.settimeout(10)
        assert exactly(connection, 4) == b"held"


def test_lose_one_way(proxy: Proxy) -> None:
    """Answers vanish while questions arrive; healing cuts the connection, whose bytes are not whole."""
    with client(proxy) as connection:
        proxy.lose(Direction.TO_CLIENT)
        connection.sendall(b"lost")
        with pytest.raises(TimeoutError):
            connection.recv(4)
        proxy.heal()
        wait_until(lambda: ended(connection))


def test_delay_and_throttle(proxy: Proxy) -> None:
    """Bytes come no sooner than the delay and no faster than the rate."""
    with client(proxy) as connection:
        connection.settimeout(20)
        proxy.delay(0.2, Direction.TO_CLIENT)
        began = time.monotonic()
        connection.sendall(b"late")
        assert exactly(connection, 4) == b"late"
        assert time.monotonic() - began >= 0.2
        proxy.heal()
        proxy.throttle(100_000)
        began = time.monotonic()
        connection.sendall(bytes(20_000))
        assert len(exactly(connection, 20_000)) == 20_000
        assert time.monotonic() - began >= 0.2
