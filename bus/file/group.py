"""One group of a topic, shared by every consumer and process that names it: its state file and what changes it.

A transaction locks the group, reads the state (unless it is the one last written here), lets the operations change it
and replaces the file. Publishing and settling in one step goes through an outbox: the state is saved with the lines to
be appended and the offsets to be settled, the lines are appended, and one byte of the state file then says so. Whoever
finds an outbox without that byte, because its writer was killed, appends what is missing.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bus.errors import CorruptError
from bus.file.appending import Appending
from bus.file.layout import Layout, locked
from bus.file.operations import Finish, Operation
from bus.file.reading import Reader, fingerprint, whole_end
from bus.file.state import NOT_SENT, SENT, SENT_AT, GroupState, Outbox, Saved
from bus.lines.append import append, sync_directory, sync_file
from bus.lines.trouble import explain
from bus.registry import Clock

__all__ = ["Broadcast", "Group", "StoredGroup", "read_state"]


class Group(ABC):
    """``run``, ``join`` and ``close`` belong to the bus's thread; :meth:`changed` may be called from any."""

    def __init__(self, layout: Layout, topic: str, reader: Reader, clock: Clock, *, sync: bool) -> None:
        self._layout = layout
        self._topic = topic
        self._clock = clock
        self._sync = sync
        self.reader = reader

    @abstractmethod
    def join(self) -> None:
        """Make the group if it does not exist. Raises as :meth:`run`."""

    @abstractmethod
    def run(self, operations: Sequence[Operation]) -> None:
        """Do all of these in one transaction. What concerns one of them only is its ``error``.

        Raises:
            CorruptError: the state cannot be read back.
            FullError, UnauthorisedError, UnreachableError: nothing was done.
        """

    @property
    def epoch(self) -> str | None:
        """Another text whenever offsets begin anew; None if nobody else reads for this group."""
        return None

    @abstractmethod
    def changed(self) -> bool:
        """Whether a claim might now get what the last one did not."""

    def close(self) -> None:
        """Let go of the files."""
        self.reader.close()

    def _apply(self, state: GroupState, operations: Sequence[Operation]) -> tuple[bool, list[Finish]]:
        """Whether the state changed, and what else is to be done."""
        state.settled.clear()
        now = self._clock()
        changed = [operation.apply(state, now) for operation in operations]
        return any(changed), [op for op in operations if isinstance(op, Finish) and op.error is None]

    def _appending(self, data: Mapping[str, bytes]) -> Appending:
        return Appending(self._layout, data, sync=self._sync)


class Broadcast(Group):
    """A group of one consumer, which begins at the end of the file and is forgotten with it."""

    _state = GroupState()

    def join(self) -> None:
        self._state = state = GroupState()
        try:
            with self.reader.open() as fd:
                state.inode = os.fstat(fd).st_ino
                state.position = whole_end(fd)
                state.mark = fingerprint(fd, state.position)
        except FileNotFoundError:
            return
        except OSError as error:
            raise explain(error, f"cannot read {self.reader.path}", topic=self._topic) from error

    def run(self, operations: Sequence[Operation]) -> None:
        try:
            _, finishes = self._apply(self._state, operations)
            if finishes:
                data = _lines(finishes)
                with self._appending(data) as appending:
                    appending.write(data)
        except OSError as error:
            raise explain(error, f"cannot append to {self._topic}", topic=self._topic) from error
        for finish in finishes:
            finish.settle(self._state)
        for operation in operations:
            operation.confirmed()

    def changed(self) -> bool:
        return self.reader.changed() or self._state.soonest <= self._clock()


class StoredGroup(Group):
    """A group kept in a state file."""

    def __init__(self, layout: Layout, topic: str, group: str, reader: Reader, clock: Clock, *, sync: bool) -> None:
        super().__init__(layout, topic, reader, clock, sync=sync)
        self._path = layout.state(topic, group)
        self._lock_path = layout.lock(topic, group)
        self._state: GroupState | None = None
        #: The file that holds ``_state``. Kept open, so that no other file can be taken for it.
        self._fd: int | None = None

    def join(self) -> None:
        with self._transaction():
            state = self._load()
            if self._fd is None:
                self._save(state, None)

    @property
    def epoch(self) -> str | None:
        return None if self._state is None else self._state.epoch

    def run(self, operations: Sequence[Operation]) -> None:
        with self._transaction():
            state = self._load()
            changed, finishes = self._apply(state, operations)
            if finishes:
                self._finish(state, finishes)
            elif changed:
                self._save(state, None)
        for operation in operations:
            operation.confirmed()

    def changed(self) -> bool:
        state = self._state
        return self.reader.changed() or state is None or state.soonest <= self._clock() or not self._is_ours()

    def close(self) -> None:
        super().close()
        self._forget_state()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._layout.make_topic(self._topic)
            with locked(self._lock_path, os.O_RDWR | os.O_CREAT):
                yield
        except OSError as error:
            # What was changed in memory was not saved.
            self._forget_state()
            raise explain(error, f"cannot keep {self._path}", topic=self._topic) from error

    def _finish(self, state: GroupState, finishes: Sequence[Finish]) -> None:
        """Append the messages of all of these, then settle their deliveries."""
        data = _lines(finishes)
        acks = [offset for finish in finishes for offset in finish.acks]
        with self._appending(data) as appending:
            self._save(state, Outbox(data, appending.ends(), acks))
            try:
                appending.write(data)
            except OSError as error:
                self._decide(NOT_SENT)
                for finish in finishes:
                    finish.error = explain(error, f"cannot append to {', '.join(data)}", topic=self._topic)
                return
            self._decide(SENT)
        for finish in finishes:
            finish.settle(state)

    def _load(self) -> GroupState:
        if self._state is not None and self._is_ours():
            return self._state
        self._forget_state()
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._state = GroupState()
            return self._state
        self._fd = fd
        saved = _decode(_read_all(fd), self._path, self._topic)
        if saved.outbox is not None and saved.sent is None:
            self._resend(saved.outbox)
        self._state = saved.after(sent=saved.sent is None or saved.sent)
        return self._state

    def _resend(self, outbox: Outbox) -> None:
        """Append what a killed process did not, knowing that it may have appended all of it."""
        with Appending(self._layout, outbox.lines, sync=self._sync) as appending:
            ends = appending.ends()
            missing: dict[str, bytes] = {}
            for topic, data in outbox.lines.items():
                inode, end = outbox.ends[topic]
                lines = data.split(b"\n")[:-1]
                there: Counter[bytes] = Counter()
                if ends[topic][0] == inode:
                    wanted = set(lines)
                    there.update(line for line in appending.lines_from(topic, end) if line in wanted)
                left: list[bytes] = []
                for line in lines:
                    if there[line]:
                        there[line] -= 1
                    else:
                        left.append(line)
                if left:
                    missing[topic] = b"\n".join([*left, b""])
            appending.write(missing)
            self._decide(SENT)

    def _save(self, state: GroupState, outbox: Outbox | None) -> None:
        new = self._path + ".new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            append(fd, Saved.encode(state, outbox))
            if self._sync:
                sync_file(fd)
            os.replace(new, self._path)
            if self._sync and outbox is not None:
                # Otherwise the lines could survive a power failure which the state that settles them does not.
                sync_directory(self._path)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
        self._forget_state()
        self._state, self._fd = state, fd

    def _decide(self, fate: bytes) -> None:
        if self._fd is not None:
            os.pwrite(self._fd, fate, SENT_AT)

    def _is_ours(self) -> bool:
        fd = self._fd
        try:
            return fd is not None and os.path.samestat(os.fstat(fd), os.stat(self._path))
        except OSError:
            return False

    def _forget_state(self) -> None:
        fd, self._fd, self._state = self._fd, None, None
        if fd is not None:
            os.close(fd)


def read_state(path: str, topic: str) -> GroupState | None:
    """The state of a group as it was last saved; None = there is no such group. Takes no lock.

    Raises:
        CorruptError: it cannot be read back.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    saved = _decode(data, path, topic)
    return saved.after(sent=bool(saved.sent))


def _decode(data: bytes, path: str, topic: str) -> Saved:
    try:
        return Saved.decode(data)
    except ValueError as error:
        raise CorruptError(
            f"{path} cannot be read back: {error}. Put back a copy of it, or move it away to have the group read "
            f"{topic} again from the start",
            topic=topic,
        ) from error


def _lines(finishes: Sequence[Finish]) -> dict[str, bytes]:
    lines: dict[str, list[bytes]] = {}
    for finish in finishes:
        for message in finish.messages:
            lines.setdefault(message.topic, []).append(message.body)
    return {topic: b"\n".join([*bodies, b""]) for topic, bodies in lines.items()}


def _read_all(fd: int) -> bytes:
    blocks = []
    at = 0
    while block := os.pread(fd, 1024 * 1024, at):
        blocks.append(block)
        at += len(block)
    return b"".join(blocks)
