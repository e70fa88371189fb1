"""Somebody who sends without pause, and sends again whatever was not confirmed; and an account of what was."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

import bus
from bus import BusError, Message
from task.codec import encode
from task.task import Task
from tests.helpers import wait_until

__all__ = ["Sender"]


class Sender:
    """Sends tasks of type ``odd`` that do nothing, one after the other, in a thread of its own."""

    def __init__(self, url: str, *, size: int = 0, pause: float = 0.01) -> None:
        self._url = url
        self._padding = {"padding": "x" * size} if size else {}
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="sender")
        #: Ids that were confirmed, and every error that was met, by its type and the last text.
        self.accepted: list[str] = []
        self.errors: dict[str, str] = {}
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more; what was not confirmed is given up."""
        self._stop.set()
        self._thread.join(60)
        if self.failure is not None:
            raise self.failure

    def wait_for(self, more: int, seconds: float = 60.0) -> None:
        """Return when that many more were accepted."""
        wanted = len(self.accepted) + more
        wait_until(lambda: len(self.accepted) >= wanted or self.failure, seconds)

    def wait_for_error(self, seconds: float = 60.0) -> str:
        """Return the first text of an error that comes from now on."""
        self.errors.clear()
        wait_until(lambda: self.errors or self.failure, seconds)
        return "; ".join(self.errors.values())

    async def _run(self) -> None:
        try:
            async with bus.connect(self._url) as b, await b.producer() as producer:
                number = 0
                while not self._stop.is_set():
                    id = f"s{number:05d}"
                    message = Message("odd", encode(Task("odd", id=id, meta=self._padding)), id=id)
                    try:
                        await producer.publish_many([message])
                    except BusError as error:
                        self.errors[type(error).__name__] = str(error)
                        if not error.transient and not isinstance(error, bus.UnauthorisedError | bus.NoSuchTopicError):
                            raise
                        await asyncio.sleep(0.1)
                        continue
                    self.accepted.append(id)
                    number += 1
                    await asyncio.sleep(self._pause)
        except BusError as error:
            self.failure = error
