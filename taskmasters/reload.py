"""A rule file, or a folder of them, that may change while its taskmaster runs: taken whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

from task.errors import TaskError
from task.status import Metric

__all__ = ["RuleFile", "read_beside"]

_log = logging.getLogger("taskbus.rules")
Rules = TypeVar("Rules")
#: Seconds for which a thread may keep the interpreter while another waits for it. 5 ms is what Python begins with.
_SWITCH = 0.0005
_Signature = tuple[tuple[str, int, int, int], ...] | None


class RuleFile(Generic[Rules]):
    """The rules in the file or folder ``path``, as ``load`` reads them, and ``again`` when they have changed.

    Raises:
        TaskError: what ``load`` raises, when the file is read for the first time.
    """

    #: Seconds between two looks at the file. It is read once it has stayed the same from one look to the next, so that
    #: a file that is being written is not taken for the whole.
    interval = 1.0

    def __init__(
        self, path: str, load: Callable[[str], Rules], again: Callable[[str], Awaitable[Rules]] | None = None
    ) -> None:
        self.path = path
        self._again = again or partial(read_beside, load)
        self._read = _signature(path)
        #: The rules in force.
        self.rules = load(path)
        #: How often new rules were taken.
        self.reloads = 0
        #: Why the file as it is now was not taken; empty if it was.
        self.trouble = ""

    @asynccontextmanager
    async def watched(self, use: Callable[[Rules], None]) -> AsyncIterator[None]:
        """Inside, look for changes, and at once on SIGHUP.

        New rules that are right are given to ``use``, which may refuse them with a TaskError before it changes
        anything. Then the old ones stay in force, and :attr:`trouble` and the log say why.
        """
        asked = asyncio.Event()
        handled = threading.current_thread() is threading.main_thread()
        loop = asyncio.get_running_loop()
        if handled:
            loop.add_signal_handler(signal.SIGHUP, asked.set)
        watching = asyncio.create_task(self._watch(use, asked))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            if handled:
                loop.remove_signal_handler(signal.SIGHUP)

    def metric(self, labels: Mapping[str, str]) -> Metric:
        """Whether the file as it is now is in force, for Prometheus."""
        text = "1 while the rule file was changed and the change refused."
        return Metric("taskbus_rules_refused", "gauge", text, int(bool(self.trouble)), dict(labels))

    async def _watch(self, use: Callable[[Rules], None], asked: asyncio.Event) -> None:
        seen = self._read
        while True:
            try:
                await asyncio.wait_for(asked.wait(), self.interval)
            except TimeoutError:
                now = _signature(self.path)
                settled, seen = now == seen, now
                if not settled or now == self._read:
                    continue
            asked.clear()
            await self._reload(use)

    async def _reload(self, use: Callable[[Rules], None]) -> None:
        self._read = _signature(self.path)
        try:
            rules = await self._again(self.path)
            use(rules)
        except TaskError as error:
            self.trouble = str(error)
            _log.error(
                "the changed rules are not taken, the old ones stay in force: %s",
                error,
                extra={"event": "rules-refused", "file": self.path},
            )
            return
        self.rules = rules
        self.reloads += 1
        self.trouble = ""
        _log.info("new rules are in force", extra={"event": "rules-reloaded", "file": self.path})


async def read_beside(load: Callable[[str], Rules], path: str) -> Rules:
    """What ``load`` reads, in a thread that lets go of the interpreter often: to read very many rules takes seconds,
    in which a taskmaster goes on with others. Raises what ``load`` does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(usual, _SWITCH))
    try:
        return await asyncio.to_thread(load, path)
    finally:
        sys.setswitchinterval(usual)


def _signature(path: str) -> _Signature:
    """What changes with the file, or with any file in the folder.

    None while it cannot be looked at, as between two steps of an editor.
    """
    names = [path]
    if os.path.isdir(path):
        names = sorted(os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files)
    try:
        return tuple((name, *_look(os.stat(name))) for name in names)
    except OSError:
        return None


def _look(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino
