"""Signals as requests to an application on an event loop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(stop: Callable[[], None], hang_up: Callable[[], None] | None = None) -> Iterator[None]:
    """Call ``stop`` on the running event loop at each SIGTERM or SIGINT, and ``hang_up``, if given, at each SIGHUP.

    Does nothing off the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    caught = {signal.SIGTERM: stop, signal.SIGINT: stop}
    if hang_up is not None:
        caught[signal.SIGHUP] = hang_up
    for number, call in caught.items():
        loop.add_signal_handler(number, call)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
