"""Two nsqds and two nsqlookupds, one of which is killed with ``kill -9`` under traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import bus
from tests.helpers import await_until
from tests.kills import executed
from tests.servers.nsq import Lookupd, Nsqd
from tests.traffic import Publisher, publishing, working
from tests.unit.engine import eventually

_PATIENCE = 60


class _Pair:
    """Two nsqds that both nsqlookupds know."""

    def __init__(self, folder: Path) -> None:
        self.lookupds = [Lookupd(folder) for _ in range(2)]
        told = [f"-lookupd-tcp-address=127.0.0.1:{lookupd.tcp}" for lookupd in self.lookupds]
        self.nsqds = [Nsqd(folder, f"-node-id={number}", *told) for number in range(2)]

    @property
    def url(self) -> str:
        """The bus, through the nsqlookupds."""
        places = ",".join(f"http://127.0.0.1:{lookupd.http}" for lookupd in self.lookupds)
        return f"nsq:?lookupd={places}&poll=200ms&heartbeat=1s"

    async def known(self) -> None:
        """Return when somebody who comes now would find both nsqds."""

        async def both() -> bool:
            async with bus.connect(self.url) as b:
                return (await b.health()).ok and len(await b._nodes.all()) == 2  # type: ignore[attr-defined]

        await eventually(both, 30)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[_Pair]:
    """All four, running."""
    pair = _Pair(tmp_path)
    with ExitStack() as stack:
        for server in (*pair.lookupds, *pair.nsqds):
            stack.enter_context(server.running())
        yield pair


async def _all_done(folder: Path, wanted: set[str]) -> None:
    await await_until(lambda: wanted <= executed(folder).keys(), _PATIENCE)


@pytest.mark.timeout(180)
def test_one_of_two_nsqds_is_killed(pair: _Pair, tmp_path: Path) -> None:
    """Only what the killed one had is lost; publishers go on with the other, workers too, and both come back to it."""
    dies, lives = pair.nsqds

    async def run() -> None:
        await pair.known()
        async with (
            publishing(pair.url, "either-") as either,
            publishing(lives.url(), "lives-") as living,
            publishing(dies.url(), "dies-") as dying,
        ):
            everybody: tuple[Publisher, ...] = (either, living, dying)
            for each in everybody:
                await each.grow()
            await asyncio.to_thread(dies.kill)
            # Its last answers may be on their way still.
            await either.grow(1)
            refused = len(dying.refusals)
            doubtful = dying.accepted | either.accepted
            await await_until(lambda: len(dying.refusals) > refused, _PATIENCE)
            for each in (either, living):
                await each.grow(600)
            # By now the worker goes on with the other alone.
            await _all_done(tmp_path, set(living.accepted))
            assert not either.refusals
            assert not living.refusals

            await asyncio.to_thread(dies.start)
            await dying.grow()
            again = dying.accepted - doubtful
            await either.grow()
        # The worker is connected to it again, without anybody's help.
        await _all_done(tmp_path, again)
        accepted = set[str]().union(*(each.accepted for each in everybody))
        await _all_done(tmp_path, accepted - doubtful)
        lost = accepted - executed(tmp_path).keys()
        print(f"{len(accepted)} accepted, {len(doubtful)} of them before the kill; {len(lost)} lost")
        assert lost <= doubtful
        assert not either.refusals

    with working(tmp_path, pair.url):
        asyncio.run(run())


@pytest.mark.timeout(180)
def test_one_of_two_nsqlookupds_is_killed(pair: _Pair, tmp_path: Path) -> None:
    """Nothing is refused or lost, and who comes then finds both nsqds, also when one is back that knows none."""
    first, second = pair.lookupds

    async def run() -> None:
        await pair.known()
        async with publishing(pair.url) as publisher:
            await publisher.grow()
            await asyncio.to_thread(first.kill)
            await publisher.grow(600)
            await pair.known()
            async with bus.connect(pair.url) as b, await b.consumer("noted", None) as listener:
                seen = set[str]()
                async with asyncio.timeout(30):
                    while len(seen) < 2:
                        batch = await listener.receive(20)
                        await listener.ack(batch)
                        seen |= {delivery.id.rpartition(":")[2] for delivery in batch}
            assert seen == {str(nsqd.tcp) for nsqd in pair.nsqds}

            # An nsqd looks for an nsqlookupd that was away every 15 s: until then this one knows none.
            await asyncio.to_thread(first.start)
            await asyncio.to_thread(second.kill)
            await publisher.grow(600)
            assert not publisher.refusals
        await _all_done(tmp_path, publisher.accepted)

    with working(tmp_path, pair.url):
        asyncio.run(run())
