"""A file of tasks, one JSON object per line, checked as a whole before any of it is used."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import IO, NamedTuple, Self

from bus import TaskbusError
from bus.lines.text import LineSplitter
from task.codec import DEFAULT_MAX_SIZE, decode
from task.errors import SettingsError
from task.task import Task

__all__ = ["BadLine", "TaskFile"]

_BLOCK = 1 << 16


class BadLine(NamedTuple):
    """A line that is not a task. ``number`` counts from 1."""

    number: int
    reason: str


class TaskFile:
    """A file, a named pipe, or ``-`` for standard input. Use it with ``with``.

    What cannot be read twice is first copied to a temporary file. A task for which ``check`` raises a TaskbusError
    counts as a bad line.

    Raises:
        SettingsError: if it cannot be read.
    """

    def __init__(self, path: str, check: Callable[[Task], object]) -> None:
        #: What it is called in messages.
        self.name = "standard input" if path == "-" else path
        self._path = path
        self._check = check
        self._stack = ExitStack()
        self._stream: IO[bytes]

    def __enter__(self) -> Self:
        try:
            stream = self._stack.enter_context(open(0 if self._path == "-" else self._path, "rb"))
            self._stream = stream if stream.seekable() else self._copy(stream)
            self._start = stream.tell() if stream is self._stream else 0
        except BaseException as error:
            self._stack.close()
            if isinstance(error, OSError):
                raise SettingsError(f"cannot read {self.name}: {error.strerror}") from None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _copy(self, stream: IO[bytes]) -> IO[bytes]:
        copy = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        while block := stream.read(_BLOCK):
            copy.write(block)
        return copy

    def read(self) -> Iterator[Task | BadLine]:
        """Every line that is not blank, from the start; may be called again."""
        # One byte more than a task may have, so that a longer line is found too large by its first piece.
        lines = LineSplitter(DEFAULT_MAX_SIZE + 1)
        try:
            self._stream.seek(self._start)
            while block := self._stream.read(_BLOCK):
                yield from self._tasks(lines.feed(block))
            yield from self._tasks(lines.end())
        except OSError as error:
            raise SettingsError(f"cannot read {self.name}: {error.strerror}") from None

    def _tasks(self, lines: list[tuple[str, bytes]]) -> Iterator[Task | BadLine]:
        for id, body in lines:
            number, _, piece = id.removeprefix("line-").partition(".")
            if piece:
                continue
            try:
                task = decode(body)
                self._check(task)
            except TaskbusError as error:
                yield BadLine(int(number), str(error))
            else:
                yield task
