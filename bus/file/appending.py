"""Appending to several topics, wholly or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

from bus.file.layout import Layout, locked
from bus.file.reading import whole_end
from bus.lines.append import append, ends_torn, sync_directory, sync_file, take_back

__all__ = ["Appending"]

#: Bytes read at once.
_BLOCK = 256 * 1024
#: An append journal: inode and length of the file before the append, or zeros.
_JOURNAL = b"%020d %020d\n"


class Appending:
    """Several topics locked for appending. What an append that never ended left torn is taken away on entering."""

    def __init__(self, layout: Layout, topics: Iterable[str], *, sync: bool) -> None:
        # Everybody locks in the same order, so that nobody waits in a circle.
        self._topics = sorted(topics)
        self._layout = layout
        self._sync = sync
        self._stack = contextlib.ExitStack()
        #: Descriptors of log and journal by topic.
        self._open: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        try:
            for topic in self._topics:
                self._open[topic] = self._enter_topic(topic)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def ends(self) -> dict[str, tuple[int, int]]:
        """Inode and length of each topic's file."""
        stats = {topic: os.fstat(log) for topic, (log, _) in self._open.items()}
        return {topic: (stat.st_ino, stat.st_size) for topic, stat in stats.items()}

    def lines_from(self, topic: str, start: int) -> Iterator[bytes]:
        """The complete lines of a topic from ``start`` on, as they stand."""
        held = b""
        while block := os.pread(self._open[topic][0], _BLOCK, start):
            start += len(block)
            lines = (held + block).split(b"\n")
            held = lines.pop()
            yield from lines

    def write(self, batches: Mapping[str, bytes]) -> None:
        """Append whole lines to their topics and make them durable; on any error every file is as it was.

        Raises:
            OSError: no room, or the disk failed.
        """
        begun: list[tuple[int, int]] = []
        try:
            for topic, data in batches.items():
                log, journal = self._open[topic]
                stat = os.fstat(log)
                os.pwrite(journal, _JOURNAL % (stat.st_ino, stat.st_size), 0)
                begun.append((log, append(log, b"\n" + data if ends_torn(log, stat.st_size) else data)))
            if self._sync:
                for log, _ in begun:
                    sync_file(log)
        except OSError:
            for log, begin in begun:
                take_back(log, begin)
            raise
        finally:
            for topic in batches:
                os.pwrite(self._open[topic][1], _JOURNAL % (0, 0), 0)

    def _enter_topic(self, topic: str) -> tuple[int, int]:
        path = self._layout.log(topic)
        missing = not os.path.lexists(path)
        self._layout.make_topic(topic)
        log = self._stack.enter_context(locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT))
        journal = os.open(self._layout.journal(topic), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self._stack.callback(os.close, journal)
        if missing and self._sync:
            sync_directory(path)
        _repair(log, journal)
        return log, journal


def _repair(log: int, journal: int) -> None:
    """Take away the line that the last append had begun when its process was killed: it was never confirmed."""
    noted = os.pread(journal, 64, 0).split()
    if len(noted) != 2 or noted[0] == b"0" * 20:
        return
    inode, start = int(noted[0]), int(noted[1])
    stat = os.fstat(log)
    if stat.st_ino == inode and stat.st_size > start and ends_torn(log, stat.st_size):
        os.ftruncate(log, max(start, whole_end(log)))
    os.pwrite(journal, _JOURNAL % (0, 0), 0)
