"""Looking at a bus, altering nothing of it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from apps.doctor.setup import Durations, Queue, Setup
from bus import Bus, BusError, BusURL, BusURLError, Depth, connect
from bus.facts import Look
from task.codec import decode
from task.errors import DecodeError

__all__ = ["gather"]

#: Done tasks looked at to see how long they took.
_SAMPLE = 500
#: Seconds any one question may take.
_PATIENCE = 30.0
#: The group that `taskbus redrive` reads as: what it has sent back is no longer waiting.
_REDRIVE = "redrive"
#: A group that nobody reads as.
_NOBODY = "taskbus-doctor"
#: Buses on which what no group reads stays for ever.
_KEEPING = ("file", "nats", "nsq", "sqlite")
Found = TypeVar("Found")


async def gather(setup: Setup, *, interval: float, monitor: str | None = None) -> Setup:
    """``setup`` with what its bus tells. Depths are looked at twice, ``interval`` seconds apart.

    Raises:
        BusURLError: the URL or ``monitor`` is wrong.
        MissingExtraError: the adapter's library is not installed.
    """
    if setup.url is None:
        return setup
    bus = connect(setup.url)
    setup = dataclasses.replace(setup, capabilities=bus.capabilities)
    if not bus.capabilities.processes:
        return _without(setup, f"nothing waits on a {setup.scheme} bus where others can see it")
    absent = await asyncio.to_thread(_absent, bus.url)
    try:
        if absent:
            setup = _without(setup, f"{setup.url} is not there yet: it is made when it is first used")
        else:
            try:
                await _in_time(bus.open())
            except BusError as error:
                troubles = {**setup.troubles, "bus": str(error)}
                setup = _without(dataclasses.replace(setup, troubles=troubles), "the bus cannot be used")
            else:
                setup = await _Looking(bus, setup).look(interval)
        return await _facts(bus, setup, monitor)
    finally:
        await bus.close()


def _absent(url: BusURL) -> bool:
    """Whether opening it would make it."""
    return url.scheme in ("file", "sqlite") and not os.path.exists(url.path)


def _without(setup: Setup, why: str) -> Setup:
    troubles = dict.fromkeys(("queues", "dead", "unread_done"), why) | dict(setup.troubles)
    if setup.durations is None:
        troubles.setdefault("durations", f"how long tasks take is not known ({why}): give --status of a worker")
    return dataclasses.replace(setup, troubles=troubles)


async def _in_time(asked: Awaitable[Found]) -> Found:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await asked
    except TimeoutError:
        raise BusError(f"no answer within {_PATIENCE:g} s") from None


async def _facts(bus: Bus, setup: Setup, monitor: str | None) -> Setup:
    topics: list[tuple[str, str | None]] = []
    if setup.topic is not None:
        topics.append((setup.topic, setup.group))
    topics += [(topic, None) for topic in (setup.done_topic, setup.dead_topic) if topic is not None]
    try:
        facts = await _in_time(bus.diagnose(Look(topics, monitor)))
    except BusURLError:
        raise
    except BusError as error:
        why = f"the servers cannot be asked: {error}"
        return dataclasses.replace(setup, troubles={**setup.troubles, "facts": why})
    return dataclasses.replace(setup, facts=tuple(facts))


class _Looking:
    """At topics of an open bus. What a bus does not tell is a trouble, not an error."""

    def __init__(self, bus: Bus, setup: Setup) -> None:
        self._bus = bus
        self._setup = setup
        self._troubles = dict(setup.troubles)

    async def look(self, interval: float) -> Setup:
        setup = self._setup
        queues = dead = unread = None
        durations = setup.durations
        if setup.topic is not None:
            queues = await self._ask("queues", lambda: self._queues(interval))
        if setup.dead_topic is not None:
            dead_topic = setup.dead_topic
            depth = await self._ask("dead", lambda: self._bus.depth(dead_topic, _REDRIVE))
            dead = None if depth is None else depth.total
        if setup.done_topic is not None:
            done_topic = setup.done_topic
            unread = await self._ask("unread_done", lambda: self._unread(done_topic))
            seen = await self._ask("durations", lambda: self._durations(done_topic))
            if seen is not None and (durations is None or seen.longest > durations.longest):
                durations = seen
        if durations is not None:
            self._troubles.pop("durations", None)
        else:
            self._troubles.setdefault(
                "durations", "no done task is stored that tells how long tasks take: give --status of a running worker"
            )
        return dataclasses.replace(
            setup, queues=queues, dead=dead, unread_done=unread, durations=durations, troubles=self._troubles
        )

    async def _ask(self, name: str, question: Callable[[], Awaitable[Found]]) -> Found | None:
        try:
            return await _in_time(question())
        except BusError as error:
            self._troubles[name] = str(error)
            return None

    async def _queues(self, interval: float) -> tuple[Queue, ...]:
        setup = self._setup
        pairs = [(setup.topic or "", group) for group in await self._groups(setup.topic or "")]
        if setup.done_topic is not None:
            pairs += [(setup.done_topic, group) for group in await self._groups(setup.done_topic)]
        began = time.monotonic()
        first = [await self._bus.depth(topic, group) for topic, group in pairs]
        await asyncio.sleep(interval if any(depth.total for depth in first) else 0)
        apart = time.monotonic() - began
        found = []
        for (topic, group), before in zip(pairs, first, strict=True):
            after = await self._bus.depth(topic, group)
            found.append(Queue(topic, group, before, after, apart, await self._oldest(topic, group, after)))
        return tuple(found)

    async def _groups(self, topic: str) -> list[str]:
        groups = await self._bus.groups(topic)
        if topic == self._setup.topic and self._setup.group is not None and self._setup.group not in groups:
            groups.append(self._setup.group)
        return groups

    async def _oldest(self, topic: str, group: str, depth: Depth) -> float | None:
        if not depth.ready or not self._bus.capabilities.peek:
            return None
        for peeked in await self._bus.peek(topic, group, 1):
            try:
                task = decode(peeked.body)
            except DecodeError:
                return None
            moment = task.completed or task.created
            return None if moment is None else max(0.0, time.time() - moment.timestamp())
        return None

    async def _unread(self, done_topic: str) -> int:
        if self._setup.scheme not in _KEEPING or await self._bus.groups(done_topic):
            return 0
        return (await self._bus.depth(done_topic, _NOBODY)).total

    async def _durations(self, done_topic: str) -> Durations | None:
        """Of the done tasks that are still stored."""
        seconds = []
        for peeked in await self._bus.peek(done_topic, None, _SAMPLE):
            try:
                task = decode(peeked.body)
            except DecodeError:
                continue
            ours = self._setup.kind is None or task.type == self._setup.kind
            if ours and task.started is not None and task.completed is not None:
                seconds.append((task.completed - task.started).total_seconds())
        if not seconds:
            return None
        seconds.sort()
        p99 = seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
        mean = sum(seconds) / len(seconds)
        return Durations(seconds[-1], p99, mean, len(seconds), f"of {len(seconds)} done tasks in {done_topic}")
