"""Looks at the files of one rule, again and again, and tells the engine what it saw."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from taskmasters.clock import Clock
from taskmasters.files.engine import FileEngine
from taskmasters.files.entry import Entry
from taskmasters.files.notices import notices
from taskmasters.files.rules import FileRule
from taskmasters.files.source import ListingError, Source, walk
from taskmasters.threads import in_thread

__all__ = ["Scanner", "look"]

Returned = TypeVar("Returned")

_log = logging.getLogger("taskbus.files")
#: Seconds between complete looks: of folders that are watched, that are not, and of object stores.
_WATCHED, _LOCAL, _REMOTE = 60.0, 10.0, 30.0
#: Seconds of the shortest wait, lest a clock that stands still makes a hot loop.
_LEAST = 0.01
#: Changed paths that are looked at one by one; more are a reason for a complete look.
_MOST = 10_000


def look(rule: FileRule, source: Source, now: float) -> tuple[list[Entry], str]:
    """What a complete look shows, and what was in its way; empty if nothing was. Blocking."""
    found: list[Entry] = []
    marker = rule.grouping.marker or "" if rule.grouping else ""
    try:
        for glob in rule.pattern.globs(now):
            found.extend(walk(source, glob, marker))
        if not found:
            source.check(rule.pattern.root)
    except ListingError as error:
        return found, str(error)
    return found, ""


class Scanner:
    """The looks of one rule. ``observed`` is called after each."""

    def __init__(
        self, rule: FileRule, source: Source, engine: FileEngine, clock: Clock, observed: Callable[[], None]
    ) -> None:
        self.rule = rule
        self._source = source
        self._engine = engine
        self._clock = clock
        self._observed = observed
        self._changed: set[str] = set()
        self._woken = asyncio.Event()
        self._wanted = False
        self._watching = False
        self._began = 0.0
        #: Complete looks, and those that failed.
        self.looks = 0
        self.failed = 0
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """What keeps files from being seen; empty if nothing does."""
        if self._began and (lasting := time.monotonic() - self._began) > 10 * _WATCHED:
            return f"looking for the files of rule {self.rule.id} has not ended for {lasting:.0f} s"
        return self._trouble

    async def run(self) -> None:
        """Look until cancelled."""
        watching = asyncio.create_task(self._watch()) if self.rule.watch else None
        try:
            while True:
                self._wanted = False
                await self._look()
                await self._look_closely(self._clock.now() + self._interval)
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    @property
    def _interval(self) -> float:
        if self.rule.poll is not None:
            return self.rule.poll
        if self.rule.pattern.scheme:
            return _REMOTE
        return _WATCHED if self._watching else _LOCAL

    async def _look(self) -> None:
        began = self._clock.now()
        found, trouble = await self._timed(lambda: look(self.rule, self._source, began))
        # What was found before the trouble is there. Of what was not, nothing is known: it is not gone.
        self._engine.observe(self.rule.id, found, began, self._clock.now(), complete=not trouble)
        self.looks += 1
        self.failed += bool(trouble)
        if trouble and trouble != self._trouble:
            _log.error("%s; trying again", trouble, extra={"event": "look-failed", "rule": self.rule.id})
        elif self._trouble and not trouble:
            _log.info("files can be seen again", extra={"event": "look-recovered", "rule": self.rule.id})
        self._trouble = trouble
        self._observed()

    async def _look_closely(self, end: float) -> None:
        """Until the next complete look: at what was changed, and at what was seen first a while ago."""
        while not self._wanted:
            now = self._clock.now()
            if now >= end:
                return
            if self._engine.wants_look(self.rule.id):
                await self._wait(min(end, now + max(self.rule.settle, 10 * _LEAST)))
                return
            changed, self._changed = self._changed, set()
            paths = [*changed, *(path for path in self._engine.unsettled(self.rule.id, now) if path not in changed)]
            if paths and (self.rule.pattern.scheme or len(paths) > _MOST):
                return
            if paths:
                await self._look_at(paths)
                continue
            wake = self._engine.watched[self.rule.id].wake()
            await self._wait(end if wake is None else min(end, wake))

    async def _look_at(self, paths: Sequence[str]) -> None:
        began = self._clock.now()

        def stat() -> list[Entry | None]:
            found: list[Entry | None] = []
            for path in paths:
                try:
                    found.append(self._source.stat(path))
                except ListingError:
                    found.append(None)  # the next complete look tells
            return found

        found = await self._timed(stat)
        self._engine.gone(self.rule.id, [path for path, entry in zip(paths, found, strict=True) if entry is None])
        entries = [entry for entry in found if entry is not None]
        self._engine.observe(self.rule.id, entries, began, self._clock.now(), complete=False)
        self._observed()

    async def _timed(self, work: Callable[[], Returned]) -> Returned:
        self._began = time.monotonic()
        try:
            return await in_thread(work)
        finally:
            self._began = 0.0

    async def _watch(self) -> None:
        def watching(works: bool) -> None:
            self._watching = works
            self._wanted = True
            self._woken.set()

        pattern = self.rule.pattern
        async for paths in notices(pattern.root, deep=pattern.deep, watching=watching):
            fitting = {path for path in paths if pattern.match(path) is not None}
            # What came into a new folder before it was watched was not told.
            new_folder = await in_thread(partial(_any_folder, paths - fitting))
            self._wanted = self._wanted or new_folder or any(map(self.rule.is_marker, paths))
            self._changed |= fitting
            self._woken.set()

    async def _wait(self, moment: float) -> None:
        now = self._clock.now()
        self._woken.clear()
        if self._changed or self._wanted:
            return
        waits = [
            asyncio.ensure_future(self._woken.wait()),
            asyncio.ensure_future(self._clock.wait_until(max(moment, now + _LEAST))),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _any_folder(paths: Iterable[str]) -> bool:
    return any(map(os.path.isdir, paths))
