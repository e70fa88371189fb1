"""What the system tells of changes to files, where it does. It only hastens: complete looks find everything too."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable

from taskmasters.files.local import is_network
from taskmasters.threads import in_thread

__all__ = ["notices"]

_log = logging.getLogger("taskbus.files")
#: Milliseconds for which changes are collected.
_STEP, _DEBOUNCE = 50, 200
#: Milliseconds after which it is known that watching has begun, though nothing has changed.
_TIMEOUT = 500
#: Seconds between looks for a folder that is not there yet.
_PATIENCE = 1.0


async def notices(root: str, *, deep: bool, watching: Callable[[bool], None]) -> AsyncIterator[set[str]]:
    """Paths below ``root`` that were changed or made. ``watching`` is told whether that works at present.

    Ends where it cannot work: without watchfiles, on a network disk, when the system has no more watches to give.
    """
    try:
        from watchfiles import Change, awatch
    except ImportError:
        _log.info(
            "without watchfiles new files are found by looking only: pip install 'taskbus[files]'",
            extra={"event": "no-watching"},
        )
        return
    while True:
        while not await in_thread(lambda: os.path.isdir(root)):  # noqa: ASYNC110 - nothing tells that it comes
            await asyncio.sleep(_PATIENCE)
        if await in_thread(lambda: is_network(root)):
            _log.info("%s is on a network disk: it is looked at, not watched", root, extra={"event": "no-watching"})
            return
        try:
            works = False
            # Its own filter would leave out what it takes for the files of editors and tools.
            async for changes in awatch(
                root,
                watch_filter=None,
                recursive=deep,
                debounce=_DEBOUNCE,
                step=_STEP,
                rust_timeout=_TIMEOUT,
                yield_on_timeout=True,
            ):
                if not works:
                    # What came between a look and this moment was not told.
                    works = True
                    watching(True)
                if changes:
                    yield {path for change, path in changes if change is not Change.deleted}
                    if not await in_thread(lambda: os.path.isdir(root)):
                        break
        except (OSError, RuntimeError) as error:  # what the system and watchfiles' own core raise
            _log.warning("%s cannot be watched, only looked at: %s", root, error, extra={"event": "no-watching"})
            return
        finally:
            watching(False)
