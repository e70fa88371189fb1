"""Writing whole lines: to a file so that a batch is there wholly or not at all, to a pipe as it can take them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
from abc import ABC, abstractmethod

from bus.lines.append import append, ends_torn, sync_file, take_back
from bus.lines.batcher import Batcher
from bus.lines.place import Place, is_regular
from bus.lines.trouble import explain

__all__ = ["Sink", "open_sink"]

#: Bytes a pipe takes in one piece, so that the lines of several writers do not mix (POSIX).
_PIPE_BUF = select.PIPE_BUF
#: Seconds between two looks for the reader of a named pipe.
_NO_READER = 0.05


class Sink(ABC):
    """One open output. Concurrent writes are joined."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._batcher: Batcher[bytes] = Batcher(self._write)

    async def write(self, lines: bytes) -> None:
        """Write whole lines, ended by a newline, and return when they are confirmed.

        Raises:
            FullError: nothing of it is in the file.
            OutputClosedError: the reader has gone.
            UnreachableError: anything else.
        """
        await self._batcher.submit(lines)

    async def close(self) -> None:
        """Finish what is being written and close. Not to be called twice."""
        await self._batcher.drain()
        os.close(self._fd)

    @abstractmethod
    async def _write(self, batch: list[bytes]) -> None: ...


async def open_sink(place: Place, *, sync: bool) -> Sink:
    """Open an output, waiting for the reader of a named pipe. Raises as :meth:`Place.open_output`."""
    fd = place.open_output()
    while fd is None:
        await asyncio.sleep(_NO_READER)
        fd = place.open_output()
    if is_regular(fd):
        return _FileSink(fd, place, sync)
    return _PipeSink(fd, str(place))


class _FileSink(Sink):
    def __init__(self, fd: int, place: Place, sync: bool) -> None:
        super().__init__(fd, str(place))
        self._place = place
        self._sync = sync
        self._end = 0

    async def _write(self, batch: list[bytes]) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._append, b"".join(batch))

    def _append(self, data: bytes) -> None:
        try:
            if self._place.ours and os.fstat(self._fd).st_nlink == 0:
                self._reopen()
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                start = os.fstat(self._fd).st_size
                if start != self._end and ends_torn(self._fd, start):
                    data = b"\n" + data
                begin = append(self._fd, data)
                self._end = begin + len(data)
                if self._sync:
                    self._confirm(begin)
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError as error:
            raise explain(error, f"cannot append to {self._name}") from error

    def _confirm(self, begin: int) -> None:
        try:
            sync_file(self._fd)
        except OSError:
            take_back(self._fd, begin)
            raise

    def _reopen(self) -> None:
        """The file was removed: what is written to it now would be gone with our descriptor."""
        fd = self._place.open_output()
        if fd is not None:
            os.close(self._fd)
            self._fd = fd


class _PipeSink(Sink):
    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd, name)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    async def _write(self, batch: list[bytes]) -> None:
        data = b"".join(batch)
        at = 0
        try:
            while at < len(data):
                # A descriptor shared with other programs must stay blocking, so it is asked before each write, and
                # no write is larger than what a pipe that says yes takes at once.
                while not self._poll.poll(0):
                    await self._writable()
                end = data.rfind(b"\n", at, at + _PIPE_BUF) + 1 or at + _PIPE_BUF
                with contextlib.suppress(BlockingIOError):
                    at += os.write(self._fd, data[at:end])
        except OSError as error:
            raise explain(error, f"cannot write to {self._name}") from error

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._fd, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self._fd)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
