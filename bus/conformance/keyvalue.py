"""The tests that every :class:`bus.kv.KeyValue` passes, and every lease on one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from time import monotonic
from typing import Any

import pytest

from bus.errors import BadNameError, ClosedError, TooLargeError, UnconfirmedError, WrongRevisionError
from bus.kv import Entry, KeyValue, Lease

__all__ = ["KeyValueTests", "MakeStore", "Stutter"]

#: Gives a new client of the same, real store, not yet opened.
MakeStore = Callable[[], KeyValue]
#: Seconds of the leases here, and within which whatever is waited for must have come.
_LEASE, _PATIENCE = 1.0, 30.0


class Stutter(KeyValue):
    """A store that does what is asked and then, ``times`` times, says that it does not know whether it did."""

    def __init__(self, store: KeyValue) -> None:
        self._store = store
        self.times = 0

    async def open(self) -> None:
        await self._store.open()

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key)

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        return self._forget(await self._store.create(key, value, ttl=ttl))

    async def update(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        return self._forget(await self._store.update(key, value, revision, ttl=ttl))

    async def delete(self, key: str, revision: int) -> None:
        await self._store.delete(key, revision)
        self._forget(0)

    async def close(self) -> None:
        await self._store.close()

    def _forget(self, revision: int) -> int:
        if self.times:
            self.times -= 1
            raise UnconfirmedError("done, and not told")
        return revision


def _key() -> str:
    return f"test.{secrets.token_hex(6)}"


async def _until(condition: Callable[[], Awaitable[object]]) -> float:
    """Wait until it holds; the seconds that took."""
    began = monotonic()
    while not await condition():
        assert monotonic() - began < _PATIENCE
        await asyncio.sleep(0.02)
    return monotonic() - began


async def _twice(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Call again what the store did not confirm."""
    try:
        return await call()
    except UnconfirmedError:
        return await call()


class KeyValueTests:
    """Inherit from it, and give the fixture ``make_store``."""

    def test_k01_what_is_written_is_read_by_everybody(self, make_store: MakeStore) -> None:
        """Values come back byte for byte, by any client; where nothing stands nothing is read."""

        async def main() -> None:
            async with make_store() as one, make_store() as two:
                key = _key()
                assert await one.get(key) is None
                for value in (b"", bytes(range(256)), b"x" * 100_000, "ü\r\n".encode()):
                    now = await two.get(key)
                    revision = await one.update(key, value, now.revision) if now else await one.create(key, value)
                    assert await two.get(key) == Entry(value, revision)

        asyncio.run(main())

    def test_k02_nobody_writes_over_what_he_has_not_seen(self, make_store: MakeStore) -> None:
        """Another revision than the one that stands there is refused, and nothing changes."""

        async def main() -> None:
            async with make_store() as store:
                key = _key()
                first = await store.create(key, b"1")
                with pytest.raises(WrongRevisionError):
                    await store.create(key, b"2")
                second = await store.update(key, b"2", first)
                assert second > first
                for wrong in (first, second + 1, 0):
                    with pytest.raises(WrongRevisionError):
                        await store.update(key, b"3", wrong)
                    with pytest.raises(WrongRevisionError):
                        await store.delete(key, wrong)
                assert await store.get(key) == Entry(b"2", second)

        asyncio.run(main())

    def test_k03_revisions_only_rise(self, make_store: MakeStore) -> None:
        """What is written after a deletion or an expiry has a greater revision than all before."""

        async def main() -> None:
            async with make_store() as store:
                key, seen = _key(), [0]
                for _ in range(3):
                    seen.append(await store.create(key, b"a"))
                    seen.append(await store.update(key, b"b", seen[-1]))
                    await store.delete(key, seen[-1])
                    assert await store.get(key) is None
                    with pytest.raises(WrongRevisionError):
                        await store.delete(key, seen[-1])
                    with pytest.raises(WrongRevisionError):
                        await store.update(key, b"c", seen[-1])
                seen.append(await store.create(key, b"d", ttl=_LEASE))
                await _until(lambda: _gone(store, key))
                with pytest.raises(WrongRevisionError):
                    await store.update(key, b"e", seen[-1], ttl=_LEASE)
                seen.append(await store.create(key, b"f"))
                assert seen == sorted(set(seen))

        asyncio.run(main())

    def test_k04_an_entry_lives_as_long_as_was_said(self, make_store: MakeStore) -> None:
        """It is gone after its time and not before; writing again sets a new time, or none."""

        async def main() -> None:
            async with make_store() as store:
                short, renewed, kept = _key(), _key(), _key()
                began = monotonic()
                await store.create(short, b"1", ttl=_LEASE)
                revision = await store.create(renewed, b"1", ttl=_LEASE)
                await store.update(kept, b"2", await store.create(kept, b"1", ttl=_LEASE))

                async def gone() -> bool:
                    nonlocal revision, began
                    revision = await store.update(renewed, b"1", revision, ttl=3 * _LEASE)
                    return await store.get(short) is None

                await _until(gone)
                assert monotonic() - began >= _LEASE * 0.95
                assert await store.get(renewed) is not None
                began = monotonic()
                revision = await store.update(renewed, b"1", revision, ttl=_LEASE)
                await _until(lambda: _gone(store, renewed))
                assert monotonic() - began >= _LEASE * 0.95
                assert await store.get(kept) is not None

        asyncio.run(main())

    def test_k05_keys(self, make_store: MakeStore) -> None:
        """Keys that differ in anything are apart; what some store would not take is refused by all."""

        async def main() -> None:
            async with make_store() as store:
                base = _key()
                keys = [f"{base}.{last}" for last in ("a", "A", "a.b", "a-b", "a_b", "a=b", "a/b")] + [base]
                for number, key in enumerate(keys):
                    await store.create(key, str(number).encode())
                found = [await store.get(key) for key in keys]
                assert [entry and entry.value for entry in found] == [str(n).encode() for n in range(len(keys))]
                for wrong in ("", ".a", "a.", "a..b", "a b", "a*", "a.>", "ä", "a\r\nb", "x" * 201):
                    for call in (store.get(wrong), store.create(wrong, b""), store.delete(wrong, 1)):
                        with pytest.raises(BadNameError):
                            await call

        asyncio.run(main())

    def test_k06_too_large(self, make_store: MakeStore) -> None:
        """A value that the store does not take is refused with its limit, and one of that size is taken."""

        async def main() -> None:
            async with make_store() as store:
                with pytest.raises(TooLargeError) as caught:
                    await store.create(_key(), b"x" * 32 * 1024**2)
                await store.create(_key(), b"x" * caught.value.limit)

        asyncio.run(main())

    def test_k07_one_of_many_creates(self, make_store: MakeStore) -> None:
        """Of eight clients that create the same key at once, one does."""

        async def main() -> None:
            async with AsyncExitStack() as stack:
                stores = [await stack.enter_async_context(make_store()) for _ in range(8)]
                for _ in range(10):
                    key = _key()
                    made = await asyncio.gather(
                        *(store.create(key, str(n).encode(), ttl=60.0) for n, store in enumerate(stores)),
                        return_exceptions=True,
                    )
                    ((winner, revision),) = [(n, got) for n, got in enumerate(made) if isinstance(got, int)]
                    assert all(isinstance(got, (int, WrongRevisionError)) for got in made)
                    assert await stores[0].get(key) == Entry(str(winner).encode(), revision)

        asyncio.run(main())

    def test_k08_no_update_is_lost(self, make_store: MakeStore) -> None:
        """Four clients count up one number, each reading and replacing it: all that was confirmed is counted."""

        async def main() -> None:
            key = _key()

            async def count(store: KeyValue) -> None:
                done = 0
                while done < 25:
                    entry = await store.get(key)
                    assert entry is not None
                    try:
                        await store.update(key, str(int(entry.value) + 1).encode(), entry.revision)
                    except WrongRevisionError:
                        continue
                    done += 1

            async with AsyncExitStack() as stack:
                stores = [await stack.enter_async_context(make_store()) for _ in range(4)]
                await stores[0].create(key, b"0")
                await asyncio.gather(*map(count, stores))
                entry = await stores[0].get(key)
                assert entry is not None
                assert entry.value == b"100"

        asyncio.run(main())

    def test_k09_closed(self, make_store: MakeStore) -> None:
        """After close, which may be called again, every call says so."""

        async def main() -> None:
            store = make_store()
            async with store:
                revision = await store.create(key := _key(), b"1")
            await store.close()
            for call in (store.get(key), store.create(key, b""), store.update(key, b"", revision)):
                with pytest.raises(ClosedError):
                    await call

        asyncio.run(main())

    def test_k10_a_lease_has_one_holder(self, make_store: MakeStore) -> None:
        """It is held by one until that gives it back, then by the next, whose fence is greater."""

        async def main() -> None:
            async with make_store() as one, make_store() as two:
                key = _key()
                first, second = Lease(one, key, b"first", 30.0), Lease(two, key, b"second", 30.0)
                assert await first.acquire() is None
                assert 25 < first.left <= 30
                other = await second.acquire()
                assert other is not None
                assert other.value == b"first"
                assert second.left == 0
                assert not await second.renew()
                assert not await second.end()
                assert await first.renew()
                assert await first.end()
                assert (first.left, await first.renew(), await first.end()) == (0, False, False)
                assert await second.acquire() is None
                assert second.fence > first.fence > 0

        asyncio.run(main())

    def test_k11_who_lost_a_lease_changes_nothing(self, make_store: MakeStore) -> None:
        """A holder that stood still for longer than its lease finds it taken, and its last word is not taken."""

        async def main() -> None:
            async with make_store() as one, make_store() as two:
                for last in (None, b"mine"):
                    key = _key()
                    zombie, heir = Lease(one, key, b"zombie", _LEASE), Lease(two, key, b"heir", 30.0)
                    assert await zombie.acquire() is None
                    waited = await _until(partial(_got, heir))
                    assert waited >= _LEASE * 0.9
                    assert zombie.left == 0
                    assert not await zombie.end(last, ttl=30.0)
                    assert not await zombie.renew()
                    assert heir.fence > zombie.fence
                    assert await heir.renew()

        asyncio.run(main())

    def test_k12_a_lapsed_lease_is_lost_though_nobody_took_it(self, make_store: MakeStore) -> None:
        """Nobody can say what happened meanwhile, so what was done under it does not count."""

        async def main() -> None:
            async with make_store() as store:
                for last in (None, b"mine"):
                    lease = Lease(store, key := _key(), b"me", _LEASE)
                    assert await lease.acquire() is None
                    await _until(partial(_gone, store, key))
                    assert not await lease.end(last, ttl=30.0)
                    assert await store.get(key) is None

        asyncio.run(main())

    def test_k13_what_was_not_confirmed_is_read_back(self, make_store: MakeStore) -> None:
        """Every step that was done without being confirmed is known as done when it is repeated."""

        async def main() -> None:
            async with make_store() as real:
                store = Stutter(real)
                for last in (None, b"last"):
                    lease = Lease(store, key := _key(), b"me", 30.0)
                    store.times = 1
                    assert await _twice(lease.acquire) is None
                    store.times = 1
                    assert await _twice(lease.renew)
                    assert lease.left > 0
                    store.times = 1
                    assert await _twice(partial(lease.end, last, ttl=30.0))
                    entry = await real.get(key)
                    assert (entry and entry.value) == last

        asyncio.run(main())


async def _gone(store: KeyValue, key: str) -> bool:
    return await store.get(key) is None


async def _got(lease: Lease) -> bool:
    return await lease.acquire() is None
