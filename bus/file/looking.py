"""Looking at what is pending without taking it. Nothing is locked: what is told was true a moment ago."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import islice

from bus.contract import Depth, Peeked
from bus.file.group import read_state
from bus.file.layout import Layout
from bus.file.operations import is_read_by
from bus.file.reading import complete_lines
from bus.file.state import GroupState
from bus.lines.trouble import explain

__all__ = ["depth", "peek"]


def depth(layout: Layout, topic: str, group: str, longest: int, now: float) -> Depth:
    """What is pending for a group; for one that does not exist, what it would receive.

    Raises:
        CorruptError: the state of the group cannot be read back.
        UnauthorisedError, UnreachableError: the files cannot be read.
    """
    state = read_state(layout.state(topic, group), topic) or GroupState()
    with _opened(layout, topic) as fd:
        if fd is None:
            return state.depth(0, now)
        if not is_read_by(fd, state):
            state = GroupState()
        return state.depth(sum(1 for _ in complete_lines(fd, state.position, longest)), now)


def peek(layout: Layout, topic: str, group: str | None, limit: int, longest: int, now: float) -> list[Peeked]:
    """The oldest pending messages of a group, or the oldest of the topic. Raises as :func:`depth`."""
    state = (read_state(layout.state(topic, group), topic) if group is not None else None) or GroupState()
    with _opened(layout, topic) as fd:
        if fd is None:
            return []
        if not is_read_by(fd, state):
            state = GroupState()
        peeked: list[Peeked] = []
        for record in sorted(state.pending.values(), key=lambda record: record.offset)[:limit]:
            waits = "in-flight" if record.claim else "delayed"
            body = os.pread(fd, record.length, record.offset)
            peeked.append(Peeked(str(record.offset), body, waits if record.due > now else "ready", record.attempt))
        fresh = islice(complete_lines(fd, state.position, longest), limit - len(peeked))
        return peeked + [Peeked(str(line.offset), line.body) for line in fresh]


@contextlib.contextmanager
def _opened(layout: Layout, topic: str) -> Iterator[int | None]:
    path = layout.log(topic)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise explain(error, f"cannot read {path}", topic=topic) from error
    try:
        yield fd
    finally:
        os.close(fd)
