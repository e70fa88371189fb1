"""What the cron taskmaster must remember, in a bucket of JetStream that several replicas share."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from zlib import crc32

import orjson

from bus.errors import WrongRevisionError
from bus.kv import KeyValue
from task.errors import StateError
from taskmasters.bucket import Bucket

__all__ = ["BucketState"]

#: Keys among which the rules are divided: a value has room for thousands, and all are read in one go.
_PARTS = 64
#: Rule id → schedule and latest instant.
_Fired = dict[str, tuple[str, int]]


class BucketState:
    """A :class:`taskmasters.cron.state.State` in ``bucket``, under keys that begin with ``prefix``."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        #: What we know to stand under each key, with its revision; 0 if nothing does.
        self._known: dict[str, tuple[int, _Fired]] = {}

    def read(self, schedules: Mapping[str, str]) -> dict[str, int]:
        """See :class:`taskmasters.cron.state.State`."""
        keys = sorted({self._key(rule) for rule in schedules})

        async def work(store: KeyValue) -> list[_Fired]:
            return await asyncio.gather(*(self._look(store, key) for key in keys))

        found = {rule: fired for part in self._bucket.call(work) for rule, fired in part.items()}
        return {
            rule: found[rule][1] for rule, schedule in schedules.items() if rule in found and found[rule][0] == schedule
        }

    def write(self, fired: Iterable[tuple[str, str, int]]) -> None:
        """See :class:`taskmasters.cron.state.State`."""
        by_key: defaultdict[str, _Fired] = defaultdict(dict)
        for rule, schedule, instant in fired:
            by_key[self._key(rule)][rule] = (schedule, instant)

        async def work(store: KeyValue) -> None:
            await asyncio.gather(*(self._merge(store, key, given) for key, given in by_key.items()))

        if by_key:
            self._bucket.call(work)

    def close(self) -> None:
        """See :class:`taskmasters.cron.state.State`. The bucket is its owner's."""

    def _key(self, rule: str) -> str:
        return f"{self._prefix}.{crc32(rule.encode('utf-8', 'replace')) % _PARTS}"

    async def _look(self, store: KeyValue, key: str) -> _Fired:
        entry = await store.get(key)
        self._known[key] = (0, {}) if entry is None else (entry.revision, _read(key, entry.value))
        return self._known[key][1]

    async def _merge(self, store: KeyValue, key: str, given: _Fired) -> None:
        """An instant never goes back while the schedule is the same, whichever of several replicas writes last."""
        while True:
            if key not in self._known:
                await self._look(store, key)
            revision, before = self._known.pop(key)
            newer = {
                rule: (schedule, instant)
                for rule, (schedule, instant) in given.items()
                if rule not in before or before[rule][0] != schedule or before[rule][1] < instant
            }
            after = {**before, **newer}
            if newer:
                value = orjson.dumps(after)
                try:
                    if revision:
                        revision = await store.update(key, value, revision)
                    else:
                        revision = await store.create(key, value)
                except WrongRevisionError:
                    continue
            self._known[key] = (revision, after)
            return


def _read(key: str, value: bytes) -> _Fired:
    try:
        return {str(rule): (str(schedule), int(instant)) for rule, (schedule, instant) in orjson.loads(value).items()}
    except (ValueError, TypeError, AttributeError):
        raise StateError(f"what stands under {key} is no state of cron; delete it, or use another --name") from None
