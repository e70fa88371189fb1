"""The connection of the pubsub bus to a server that goes on listening and answers nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("google.pubsub_v1")

import grpc.aio
from grpc import StatusCode

from bus import ClosedError, UnconfirmedError
from bus.pubsub import wire
from bus.pubsub.connection import Connection
from bus.pubsub.options import PubsubOptions

_TIMEOUT = 0.5


class _Server(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call with nothing found, but no pull, and no peer that is frozen."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.frozen: set[str] = set()

    def service(self, handler_call_details: Any) -> Any:
        """See :class:`grpc.GenericRpcHandler`."""
        pull = handler_call_details.method == wire.PULL.path

        async def answer(request: bytes, context: Any) -> bytes:
            peer = context.peer()
            if peer not in self.peers:
                self.peers.append(peer)
            if pull or peer in self.frozen:
                await asyncio.Event().wait()
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def _served() -> AsyncIterator[tuple[_Server, Connection]]:
    handler = _Server()
    server = grpc.aio.server(handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = Connection(PubsubOptions(emulator=f"127.0.0.1:{port}", timeout=_TIMEOUT))
    await connection.open()
    try:
        yield handler, connection
    finally:
        await connection.close()
        await server.stop(None)


async def _look(connection: Connection) -> Any:
    return await connection.call(wire.GET_TOPIC, wire.GET_TOPIC.request(topic="t"), "looking", topic="t")


async def _pull(connection: Connection, timeout: float) -> Any:
    request = wire.PULL.request(subscription="s")
    quietly = (StatusCode.DEADLINE_EXCEEDED,)
    return await connection.call(wire.PULL, request, "receiving", timeout=timeout, tries=1, quietly=quietly)


def test_a_connection_on_which_nothing_is_answered_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """After two calls without an answer there is another connection; what waited on the first ends with an error."""
    caplog.set_level(logging.WARNING, "taskbus.bus")

    async def run() -> None:
        async with _served() as (server, connection):
            await _look(connection)
            assert connection.fresh
            server.frozen.update(server.peers)
            waiting = asyncio.create_task(_pull(connection, 60.0))
            with pytest.raises(UnconfirmedError):
                await _look(connection)
            assert connection.silent
            assert not connection.fresh
            assert not waiting.done()
            with pytest.raises(UnconfirmedError):
                await _look(connection)
            with pytest.raises(UnconfirmedError, match=r"receiving.*given up"):
                await waiting
            assert connection.generation == 1
            await _look(connection)
            assert len(server.peers) == 2
            assert connection.fresh

    asyncio.run(run())
    assert caplog.text.count("connecting again") == 1


def test_a_call_that_takes_long_while_others_are_answered_costs_no_connection() -> None:
    """Calls that run out of time beside others that do not show nothing of the connection; nor does an empty pull."""

    async def run() -> None:
        async with _served() as (server, connection):
            for _ in range(2):
                assert await _pull(connection, _TIMEOUT) is None
                assert not connection.silent
                slow = asyncio.create_task(connection.call(wire.PULL, wire.PULL.request(subscription="s"), "waiting"))
                await asyncio.sleep(_TIMEOUT / 2)
                await _look(connection)
                with pytest.raises(UnconfirmedError):
                    await slow
                assert not connection.silent
            assert len(server.peers) == 1
            assert connection.generation == 0

    asyncio.run(run())


def test_a_process_that_stood_still_blames_no_connection() -> None:
    """Of a call that ran out of time long ago only the time it was to wait counts as silence."""

    async def run() -> None:
        async with _served() as (server, connection):
            await _look(connection)
            server.frozen.update(server.peers)
            waiting = asyncio.create_task(_look(connection))
            await asyncio.sleep(_TIMEOUT / 10)
            # As SIGSTOP does: nothing of this process runs meanwhile.
            time.sleep(3 * _TIMEOUT)  # noqa: ASYNC251 - on purpose
            with pytest.raises(UnconfirmedError):
                await waiting
            server.frozen.clear()
            await _look(connection)
            assert len(server.peers) == 1

    asyncio.run(run())


def test_closing_ends_what_waits() -> None:
    """A call under way when the bus is closed says that, and nothing of a connection given up."""

    async def run() -> None:
        async with _served() as (_, connection):
            await _look(connection)
            waiting = asyncio.create_task(_pull(connection, 60.0))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await connection.close()
            with pytest.raises(ClosedError):
                await waiting

    asyncio.run(run())
