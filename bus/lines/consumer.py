"""Reading a file or a pipe of lines to its end."""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
import os
from collections.abc import Sequence

from bus.contract import Consumer, Delivery
from bus.errors import BusError, CorruptError
from bus.lines.place import Place, is_pollable, is_regular
from bus.lines.text import LineSplitter
from bus.lines.trouble import explain
from bus.registry import Clock

__all__ = ["LinesConsumer"]

#: Bytes read at once, and so about the most that is held besides one long line.
_BLOCK = 256 * 1024
#: Seconds between two looks at the clock while a delayed line waits: the clock may be moved.
_CLOCK_STEP = 0.05


class LinesConsumer(Consumer):
    """Yields the lines of one input, in order. What is handed back comes again from memory; nothing is ever stored."""

    def __init__(self, place: Place, topic: str, group: str, max_line: int, clock: Clock) -> None:
        self.topic = topic
        self.group = group
        self._name = str(place)
        self._clock = clock
        self._fd: int | None = place.open_input()
        self._regular = is_regular(self._fd)
        self._pollable = is_pollable(self._fd)
        self._offset = os.lseek(self._fd, 0, os.SEEK_CUR) if self._regular else 0
        self._splitter = LineSplitter(max_line)
        self._ready: list[Delivery] = []
        self._next = 0
        self._numbers = itertools.count()
        #: (due, line order, delivery to yield): what was handed back.
        self._returned: list[tuple[float, int, Delivery]] = []
        self._in_flight = 0
        self._reading = False
        self._file_read: asyncio.Future[bytes] | None = None
        self._eof = False
        self._closed = False
        self._failure: BusError | None = None
        self._wake = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self._closed or (
            self._eof
            and not self._in_flight
            and not self._returned
            and self._next == len(self._ready)
            and self._failure is None
        )

    @property
    def position(self) -> int:
        """Bytes of the input yielded so far, for a progress bar."""
        waiting = sum(len(delivery.body) + 1 for delivery in itertools.islice(self._ready, self._next, None))
        return self._offset - self._splitter.held - waiting

    @property
    def size(self) -> int | None:
        """Bytes of the input in all; None where that cannot be known (a pipe, or closed)."""
        return os.fstat(self._fd).st_size if self._regular and self._fd is not None else None

    async def receive(self, limit: int = 1, timeout: float | None = None) -> list[Delivery]:
        """As :meth:`Consumer.receive`; it does not wait to fill a batch.

        Raises:
            CorruptError: the disk gives an error.
            BusURLError: the input is a directory or not open for reading.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not self.ended:
            batch = self._take(limit)
            if batch:
                self._in_flight += len(batch)
                return batch
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            self._read()
            if not await self._sleep(None if deadline is None else deadline - loop.time()):
                break
        return []

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.handle is not None:
                delivery.handle = None
                self._in_flight -= 1
        self._wake.set()

    async def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, reason: str | None = None) -> None:
        self._give_back(deliveries, delay, 1, () if reason is None else (reason,))

    async def release(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        self._give_back(deliveries, delay, 0, ())

    async def extend(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return []

    async def close(self) -> None:
        """Let go of the input. What a pipe had given and was not settled is gone: a pipe takes nothing back."""
        if self._closed:
            return
        self._closed = True
        self._ready, self._next = [], 0
        self._wake.set()
        if self._reading and self._pollable and self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._reading = False
        if self._reading and self._file_read is not None:
            await asyncio.wait([self._file_read])
        self._close_input()

    def _give_back(self, deliveries: Sequence[Delivery], delay: float, attempts: int, reasons: tuple[str, ...]) -> None:
        due = self._clock() + delay if delay > 0 else 0.0
        for old in deliveries:
            order = old.handle
            if order is None:
                continue
            old.handle = None
            self._in_flight -= 1
            again = Delivery(old.body, old.id, old.attempt + attempts, None, old.history + reasons, order)
            heapq.heappush(self._returned, (due, order, again))
        self._wake.set()

    def _take(self, limit: int) -> list[Delivery]:
        batch: list[Delivery] = []
        if self._returned:
            now = self._clock()
            while self._returned and len(batch) < limit and self._returned[0][0] <= now:
                batch.append(heapq.heappop(self._returned)[2])
        if len(batch) < limit and self._next < len(self._ready):
            start = self._next
            self._next = min(len(self._ready), start + limit - len(batch))
            batch += self._ready[start : self._next]
            if self._next == len(self._ready):
                self._ready, self._next = [], 0
        return batch

    async def _sleep(self, seconds: float | None) -> bool:
        """Wait until something may have changed; False when ``seconds`` passed."""
        step = seconds
        if self._returned:
            until = max(0.0, min(_CLOCK_STEP, self._returned[0][0] - self._clock()))
            step = until if seconds is None else min(until, seconds)
        try:
            async with asyncio.timeout(step):
                await self._wake.wait()
        except TimeoutError:
            return step != seconds
        return True

    def _read(self) -> None:
        """Ask for the next block, unless that was done or there is none."""
        if self._reading or self._eof or self._failure is not None or self._fd is None:
            return
        self._reading = True
        loop = asyncio.get_running_loop()
        if self._pollable:
            loop.add_reader(self._fd, self._read_pipe, self._fd)
        else:
            self._file_read = loop.run_in_executor(None, os.read, self._fd, _BLOCK)
            self._file_read.add_done_callback(self._read_file)

    def _read_pipe(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        try:
            block = os.read(fd, _BLOCK)
        except BlockingIOError:
            self._reading = False
        except OSError as error:
            self._arrived(b"", error)
        else:
            self._arrived(block, None)
        self._wake.set()

    def _read_file(self, done: asyncio.Future[bytes]) -> None:
        error = done.exception()
        if error is not None and not isinstance(error, OSError):
            raise error
        self._arrived(b"" if error else done.result(), error)

    def _arrived(self, block: bytes, error: OSError | None) -> None:
        self._reading = False
        self._wake.set()
        if self._closed:
            self._close_input()
            return
        if error is not None:
            self._failure = (
                CorruptError(f"cannot read {self._name}: the disk gives an error; restore the file from a copy")
                if error.errno == errno.EIO
                else explain(error, f"cannot read {self._name}")
            )
            return
        self._offset += len(block)
        self._eof = not block
        lines = self._splitter.feed(block) if block else self._splitter.end()
        fresh = [
            Delivery(body, id, 1, None, (), order) for (id, body), order in zip(lines, self._numbers, strict=False)
        ]
        self._ready = self._ready[self._next :] + fresh
        self._next = 0

    def _close_input(self) -> None:
        if self._fd is not None and not self._reading:
            os.close(self._fd)
            self._fd = None
