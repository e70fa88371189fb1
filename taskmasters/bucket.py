"""What taskmasters keep in a bucket of NATS JetStream that replicas share, instead of a database."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

import orjson

from bus import BusError, BusURLError
from bus.errors import WrongRevisionError
from bus.kv import KeyValue, open_kv
from task.errors import StateError
from task.task import derive_id
from taskmasters.leader import Held

__all__ = ["Bucket", "KeySeat", "key_part"]

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
#: Characters of the longest part of a key. Of longer texts a derived id is the part.
_LONGEST = 100
Returned = TypeVar("Returned")


class Bucket:
    """The store that ``url`` names, on a thread of its own. Methods may be called from any other."""

    def __init__(self, url: str) -> None:
        """Connect.

        Raises:
            BusURLError, MissingExtraError: if ``url`` cannot be used as written.
            StateError: if the store does not answer, or does not let us in.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="taskbus-bucket", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            self._store = self._wait(self._open(url))
        except BaseException:
            self._stop()
            raise

    @staticmethod
    async def _open(url: str) -> KeyValue:
        store = open_kv(url)
        await store.open()
        return store

    def call(self, work: Callable[[KeyValue], Coroutine[Any, Any, Returned]]) -> Returned:
        """Run ``work`` and wait for it.

        Raises:
            StateError: if the store cannot be used. ``transient`` if it may be later; it may have been done then.
        """
        if self._closed:
            raise StateError("the state is closed")
        return self._wait(work(self._store))

    def close(self) -> None:
        """Let go. Idempotent."""
        if not self._closed:
            self._closed = True
            self._wait(self._store.close())
            self._stop()

    def _wait(self, work: Coroutine[Any, Any, Returned]) -> Returned:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except BusURLError:
            raise
        except BusError as error:
            raise StateError(f"the state cannot be used: {error}", transient=error.transient) from error
        except CancelledError:
            raise StateError("the state is closed") from None

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class KeySeat:
    """A :class:`taskmasters.leader.Seat`: the key ``key`` of ``bucket``."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key

    def change(self, decide: Callable[[Held | None], Held | None]) -> None:
        """See :class:`taskmasters.leader.Seat`."""
        self._bucket.call(lambda store: self._change(store, decide))

    async def _change(self, store: KeyValue, decide: Callable[[Held | None], Held | None]) -> None:
        while True:
            entry = await store.get(self._key)
            wanted = decide(None if entry is None else self._read(entry.value))
            if wanted is None:
                return
            value = orjson.dumps(wanted._asdict())
            try:
                if entry is None:
                    await store.create(self._key, value)
                else:
                    await store.update(self._key, value, entry.revision)
            except WrongRevisionError:
                continue
            return

    def _read(self, value: bytes) -> Held:
        try:
            found = orjson.loads(value)
            return Held(str(found["holder"]), int(found["term"]), int(found["beat"]))
        except (ValueError, TypeError, KeyError):
            raise StateError(
                f"what stands under {self._key} is no seat of ours; delete it, or use another --name"
            ) from None


def key_part(text: str) -> str:
    """``text`` as one part of a key; texts that differ give parts that differ."""
    part = _UNSAFE.sub(lambda found: "".join(f"={byte:02x}" for byte in found[0].encode("utf-8", "replace")), text)
    return part if 0 < len(part) <= _LONGEST else f"={derive_id('key', text)}"
