"""How often nsqlookupd is asked, and what holds when it does not answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("nsq")

from bus import UnreachableError
from bus.nsq.nodes import Nodes
from bus.nsq.options import read_options
from bus.url import parse_url
from tests.helpers import await_until


class _Lookupd:
    """Answers as nsqlookupd does, counts, and can be told to answer no more or nonsense."""

    def __init__(self) -> None:
        self.asked = 0
        self.hosts = ["a"]
        self.body: bytes | None = None
        self.silent = False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        producers = [{"broadcast_address": host, "tcp_port": 4150, "http_port": 4151} for host in self.hosts]
        if self.silent:
            await reader.read()
        else:
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + (self.body or json.dumps({"producers": producers}).encode()))
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def _nodes(poll: str) -> AsyncIterator[tuple[_Lookupd, Nodes]]:
    lookupd = _Lookupd()
    async with await asyncio.start_server(lookupd.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = parse_url(f"nsq:?lookupd=127.0.0.1:{port}&poll={poll}&timeout=5s")
        nodes = Nodes((), read_options(url), None)
        yield lookupd, nodes
        await nodes.close()


def test_nsqlookupd_is_not_asked_for_every_publish() -> None:
    """Within ``poll`` it is asked once, however often the nodes are wanted; a doubt has it asked again, once."""

    async def run() -> None:
        async with _nodes("1h") as (lookupd, nodes):
            for _ in range(100):
                assert await nodes.all() == (("a", 4150),)
            assert lookupd.asked == 1
            lookupd.hosts = ["a", "b"]
            nodes.doubt()
            for _ in range(100):
                await nodes.all()
            async with asyncio.timeout(10):
                while len(await nodes.all()) < 2:  # noqa: ASYNC110 - asking is what is tested
                    await asyncio.sleep(0)
            assert lookupd.asked == 2

    asyncio.run(run())


def test_nobody_waits_for_an_nsqlookupd_that_is_silent() -> None:
    """While it does not answer the nodes it told are still known, at once."""

    async def run() -> None:
        async with _nodes("100ms") as (lookupd, nodes):
            await nodes.all()
            lookupd.silent = True
            nodes.doubt()
            async with asyncio.timeout(2):
                assert await nodes.all() == (("a", 4150),)
                await await_until(lambda: lookupd.asked == 2)
                assert await nodes.all() == (("a", 4150),)

    asyncio.run(run())


def test_nonsense_is_not_believed() -> None:
    """An answer that makes no sense is an UnreachableError at first, and later leaves the nodes as they were."""

    async def run() -> None:
        async with _nodes("100ms") as (lookupd, nodes):
            lookupd.body = b'{"producers":[{"tcp_port":"x"}]}'
            with pytest.raises(UnreachableError):
                await nodes.all()
            lookupd.body = None
            assert await nodes.all() == (("a", 4150),)
            lookupd.body = b"[]"
            nodes.doubt()
            await nodes.all()
            await await_until(lambda: lookupd.asked == 3)
            assert await nodes.all() == (("a", 4150),)

    asyncio.run(run())


def test_an_nsqlookupd_that_was_just_started_knows_nobody() -> None:
    """An answer without any nsqd leaves those that were known; one with some replaces them."""

    async def run() -> None:
        async with _nodes("1h") as (lookupd, nodes):
            lookupd.hosts = []
            assert await nodes.all() == ()
            lookupd.hosts = ["a"]
            assert await nodes.all() == (("a", 4150),)
            lookupd.hosts = []
            assert await nodes.ask() == (("a", 4150),)
            assert await nodes.of("t") == (("a", 4150),)
            lookupd.hosts = ["b"]
            assert await nodes.ask() == (("b", 4150),)

    asyncio.run(run())
