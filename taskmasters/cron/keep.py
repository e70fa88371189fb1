"""Where the cron taskmaster keeps what it must remember: nowhere, in a file of its own, or shared with its replicas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from task.errors import SettingsError, StateError
from taskmasters.cron.options import CronOptions
from taskmasters.cron.state import NoState, SqliteState, State

if TYPE_CHECKING:
    from taskmasters.leader import Leader

__all__ = ["Kept", "is_there", "kept", "leading"]

_log = logging.getLogger("taskbus.cron")
#: Seconds: the longest lease with which a replica that takes over finds nothing missed.
_LONGEST = 30.0


class Kept:
    """The state, and who of several replicas is at work if it is shared."""

    def __init__(self, state: State, leader: Leader | None = None) -> None:
        self.state = state
        self.leader = leader


@contextmanager
def kept(rules: str, options: CronOptions) -> Iterator[Kept]:
    """Open what ``options.state`` names for the rule file ``rules``.

    Raises:
        SettingsError, MissingExtraError, StateError: if that cannot be used.
    """
    place = options.state or str(Path(rules).with_suffix(".state.db"))
    if place == "-":
        yield Kept(NoState())
    elif place.startswith("nats:"):
        yield from _bucket(place, options.name or Path(rules).stem, options.lease)
    elif _is_url(place):
        yield from _shared(place, options.name or Path(rules).stem, options.lease)
    else:
        state = SqliteState(place)
        try:
            yield Kept(state)
        finally:
            state.close()


def is_there(rules: str, options: CronOptions) -> bool:
    """Whether there may be something kept: :func:`kept` would make a file that is missing."""
    place = options.state or str(Path(rules).with_suffix(".state.db"))
    return _is_url(place) or Path(place).exists()


def _is_url(place: str) -> bool:
    return place.startswith(("sqlite:", "nats:")) or "://" in place


def _shared(place: str, name: str, lease: float) -> Iterator[Kept]:
    from taskmasters.cron.shared_state import FIRED, SharedState
    from taskmasters.leader import Leader
    from taskmasters.store import open_store
    from taskmasters.store.seat import LEADER, SqlSeat

    _check(lease)
    election = f"cron:{name}"
    store = open_store(place, FIRED, LEADER)
    try:
        yield Kept(SharedState(store, name), Leader(SqlSeat(store, election), election, lease))
    finally:
        store.close()


def _bucket(place: str, name: str, lease: float) -> Iterator[Kept]:
    from taskmasters.bucket import Bucket, KeySeat, key_part
    from taskmasters.cron.bucket_state import BucketState
    from taskmasters.leader import Leader

    _check(lease)
    prefix = f"cron.{key_part(name)}"
    bucket = Bucket(place)
    try:
        leader = Leader(KeySeat(bucket, f"{prefix}.leader"), f"cron:{name}", lease)
        yield Kept(BucketState(bucket, f"{prefix}.fired"), leader)
    finally:
        bucket.close()


def _check(lease: float) -> None:
    if not 0 < lease <= _LONGEST:
        raise SettingsError(f"the lease must be more than 0 and at most {_LONGEST:g} s")


@asynccontextmanager
async def leading(leader: Leader | None) -> AsyncIterator[None]:
    """Inside, stand for election; at the end let another take over at once."""
    if leader is None:
        yield
        return
    beating = asyncio.create_task(leader.run())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        with suppress(StateError):
            await asyncio.to_thread(leader.resign)
