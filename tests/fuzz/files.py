"""Files that others write, or that a crash may leave torn: lines, rows, states, records and databases."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from zlib import adler32

from apps.cli.task_file import TaskFile
from bus import BusError, Delivery, Message, TaskbusError, connect
from bus.file.reading import complete_lines
from bus.file.state import GroupState, Outbox, Record, Saved
from bus.lines.text import LineSplitter
from task import Task
from task.assignment import Assignment
from task.codec import encode_done
from task.context import Context
from task.errors import SettingsError
from task.recorder import Recorder
from task.status_server import _Handler
from taskmasters.batch.rows import read_rows
from tests.fuzz.rules import _FOLDER, _reading
from tests.fuzz.seeds import CSV, JSON_LINES, TASKS
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

_LINES = (b"\n".join(TASKS) + b"\n", b"\xef\xbb\xbfa\r\n\r\n b\r\n\n" + b"x" * 70 + b"\nlast")
_LONGEST = 50


def _cut(data: bytes) -> list[bytes]:
    """The same bytes in pieces, always the same ones."""
    random = Random(data)
    ends = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(8)))
    return [data[start:end] for start, end in pairwise([0, *ends, len(data)])]


def _splitter(data: bytes) -> None:
    whole, pieces = LineSplitter(1 << 20), LineSplitter(1 << 20)
    expected = whole.feed(data) + whole.end()
    found = [line for piece in _cut(data) for line in pieces.feed(piece)] + pieces.end()
    assert found == expected
    short = LineSplitter(_LONGEST)
    lines = [line for piece in _cut(data) for line in short.feed(piece)] + short.end()
    assert all(0 < len(body) <= _LONGEST and b"\n" not in body for _, body in lines)


def _topic(data: bytes) -> None:
    fd = os.memfd_create("topic")
    try:
        os.write(fd, data)
        lines = list(complete_lines(fd, 0, _LONGEST))
        again = complete_lines(fd, 0, _LONGEST, 7)
        assert [line[:2] for line in lines] == [line[:2] for line in again]
        for line in lines:
            assert 0 < len(line.body) <= _LONGEST
            assert line.body == data[line.offset : line.offset + len(line.body)]
            assert line.next > line.offset
    finally:
        os.close(fd)


def _saved_seeds() -> tuple[bytes, ...]:
    state = GroupState(12, 345, 678, 9, "ep")
    state.add(Record(0, 10, 1, 3, 1e9, ["no"]))
    state.add(Record(11, 10))
    return (
        Saved.encode(state, None),
        Saved.encode(state, Outbox({"done": b'{"a":1}\n', "t": b"1\n2\n"}, {"done": (1, 2), "t": (3, 4)}, [0])),
    )


def _saved(data: bytes) -> None:
    saved = Saved.decode(data)
    state = saved.after(sent=bool(saved.sent))
    state.depth(0, 5e8)
    due = state.take_due(5e8, 10)
    state.claim(due, 6e8)
    for record in due:
        state.give_back(record, 7e8, count=True, reason="no")
    Saved.decode(Saved.encode(state, saved.outbox))


_BODY = b'{"type":"t","task":"v"}'
_RECORDS = (
    b'["1",%d,1,"complete","fine",null,false,"2026-01-01T00:00:00Z","2026-01-01T00:00:01Z"]' % adler32(_BODY),
    b'["1",%d,1,"error","no",{"a":"b"},true,"2026-01-01T00:00:00Z","2026-01-01T00:00:01Z"]' % adler32(_BODY),
)


class _Records:
    """One recorder, whose files the inputs are."""

    recorder: Recorder | None = None

    def __call__(self, data: bytes) -> None:
        folder = Path(_FOLDER.name) / "records"
        if self.recorder is None:
            folder.mkdir(exist_ok=True)
            self.recorder = Recorder(folder, "scope")
        recorder = self.recorder
        left = folder / "scope-1-dead.run"
        sound = len(data).to_bytes(4, "little") + adler32(data).to_bytes(4, "little") + data
        for content in (sound, data):
            left.write_bytes(content)
            recorder._read.clear()
            recorder._left.clear()
            recorder._looked = -1e9
            delivery = Delivery(_BODY, "1", 2)
            assignment = Assignment(delivery, Task("t", "v"), Context(Task("t", "v"), 2))
            if recorder.recall(delivery, assignment):
                outcome = assignment.outcome
                assert outcome is not None
                encode_done(
                    assignment.task,
                    outcome.result,
                    outcome.msg,
                    assignment.started,
                    assignment.completed,
                    outcome.meta or {},
                )


class _Database:
    """A SQLite bus file in which bytes are changed."""

    def __init__(self) -> None:
        self._sound: Path | None = None

    def seeds(self) -> tuple[bytes, ...]:
        """The bytes of a database with messages in every state."""
        path = Path(_FOLDER.name) / "sound.db"

        async def make() -> None:
            async with connect(f"sqlite:{path}") as bus, await bus.producer() as producer:
                await producer.publish_many([Message("t", b"%d" % number) for number in range(5)])
                await producer.publish_many([Message("t", b"late", delay=1000.0, id="7")])
                async with await bus.consumer("t", "g") as consumer:
                    held = await consumer.receive(3)
                    await consumer.nack(held[:1], reason="no")
                    await consumer.ack(held[1:2])

        asyncio.run(make())
        return (path.read_bytes(),)

    def read(self, data: bytes) -> None:
        """Look at all there is, and receive."""
        folder = Path(_FOLDER.name) / "db"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "bus.db").write_bytes(data)

        async def use() -> None:
            async with asyncio.timeout(8), connect(f"sqlite:{folder}/bus.db?wait=1s") as bus:
                for topic in await bus.topics():
                    await bus.groups(topic)
                    await bus.depth(topic, "g")
                    await bus.peek(topic, "g")
                async with await bus.consumer("t", "g") as consumer:
                    await consumer.ack(await consumer.receive(10, timeout=0.01))

        asyncio.run(use())


class _Source:
    def statistics(self) -> dict[str, object]:
        return {"app": "fuzz"}

    def healthy(self) -> tuple[bool, str]:
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        return True, "ok"

    def metrics(self) -> list[Any]:
        return []


class _Server:
    source = _Source()
    names = frozenset({"localhost"})

    @property
    def registry(self) -> object:
        from prometheus_client import CollectorRegistry

        return CollectorRegistry()


def _http(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        _Handler(ours, ("127.0.0.1", 1), _Server())  # type: ignore[arg-type]
        ours.close()
        answer = b""
        with suppress(ConnectionResetError):  # what follows the head of a request is not read
            while block := theirs.recv(65536):
                answer += block
    assert not answer or answer.startswith(b"HTTP/1.") or data.lstrip(b"\r\n").find(b"HTTP/1") < 0


def _tasks(path: str) -> None:
    with TaskFile(path, lambda task: None) as file:
        first, again = list(file.read()), list(file.read())
    assert first == again


_database = _Database()

TARGETS = (
    Target("lines", _LINES, _splitter, ()),
    Target("file-topic", _LINES, _topic, ()),
    Target("file-state", _saved_seeds(), _saved, (ValueError,)),
    Target("records", _RECORDS, _Records(), (), cost=5),
    Target("rows-csv", CSV, _reading("rows.csv", lambda path: list(read_rows(path))), (SettingsError,)),
    Target("rows-json", JSON_LINES, _reading("rows.jsonl", lambda path: list(read_rows(path))), (SettingsError,)),
    Target("task-file", _LINES, _reading("tasks.jsonl", _tasks), (TaskbusError,)),
    Target(
        "status-http",
        (
            b"GET / HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\n\r\n",
            b"HEAD /readyz?x=1 HTTP/1.0\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHost: [::1]\r\nConnection: keep-alive\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        ),
        _http,
        (),
        cost=5,
    ),
    Target("sqlite-file", _database.seeds(), _database.read, (BusError,), cost=500),
)
