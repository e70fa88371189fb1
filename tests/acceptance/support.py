"""A worker that does whatever its task's value says, run as a real process, and an account of what came out."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

import bus
from bus import Message
from task import Task, encode
from task.dead import original
from tests.helpers import wait_until
from tests.taskbus_command import command_line, environment, start

__all__ = ["ODD", "Odd", "as_lines", "pending", "publish", "read_lines", "taken", "task_line", "tmpfs"]

#: A task's value is ``DEED`` or ``DEED:ARGUMENT``.
ODD = '''
import ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path
from task import Context, Outcome, Worker, complete, error

print("printed while it was imported")


def begun(deed):
    """Tells the test, by a file, that a task has begun, and in which process."""
    path = Path(f"begun-{deed}.{threading.get_native_id()}")
    path.write_text(str(os.getpid()))
    path.rename(f"begun-{deed}")


class Odd(Worker):
    type = "odd"

    def do_task(self, ctx: Context) -> Outcome:
        deed, _, argument = self.task.value.partition(":")
        return getattr(self, "do_" + (deed or "nothing"))(ctx, argument)

    def do_nothing(self, ctx, argument):
        return complete(str(ctx.attempt))

    def do_pid(self, ctx, argument):
        return complete(str(os.getpid()))

    def do_raise(self, ctx, argument):
        raise ValueError("a value that is wrong")

    def do_nonsense(self, ctx, argument):
        return eval(argument, {"Outcome": Outcome, "complete": complete, "Odd": Odd})

    def do_exit(self, ctx, argument):
        sys.exit(3)

    def do_quit(self, ctx, argument):
        os._exit(7)

    def do_segfault(self, ctx, argument):
        ctypes.string_at(0)

    def do_kill(self, ctx, argument):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_print(self, ctx, argument):
        print("printed", end="")
        sys.stdout.write('{"type":"no task"}\\n')
        os.write(1, b"written\\n")
        subprocess.run(["echo", "echoed"])
        return complete()

    def do_hang(self, ctx, argument):
        silent = {stream: subprocess.DEVNULL for stream in ("stdin", "stdout", "stderr")}
        child = subprocess.Popen(["sleep", "600"], **silent)
        Path("grandchild").write_text(str(child.pid))
        begun("hang")
        while True:
            time.sleep(600)

    def do_sum(self, ctx, argument):
        """Without once letting go of the interpreter."""
        begun("sum")
        sum(range(int(argument)))
        return complete(str(ctx.attempt))

    def do_wait(self, ctx, argument):
        """Until a file comes or it is told to stop."""
        begun("wait")
        while not Path(argument).exists():
            if ctx.wait(0.005):
                ctx.raise_if_cancelled()
        return complete(str(ctx.attempt))

    def do_ignore(self, ctx, argument):
        """Until a file comes, whatever it is told."""
        begun("ignore")
        while not Path(argument).exists():
            time.sleep(0.005)
        return complete(str(ctx.attempt))

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__
'''


def task_line(value: str = "", id: str | None = None, **more: object) -> bytes:
    """A task for the odd worker, as one line without its end."""
    return json.dumps({"type": "odd", "task": value} | ({} if id is None else {"id": id}) | more).encode()


def as_lines(*bodies: bytes) -> bytes:
    return b"".join(body + b"\n" for body in bodies)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; of one that is not there, none."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


class Odd:
    """One run of the odd worker in a folder of its own: where it reads, what it wrote, what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = 0
        self.out = b""
        self.err = ""
        (folder / "odd.py").write_text(ODD)

    def run(self, *args: str, stdin: bytes | None = None, limit: float = 30, cwd: Path | None = None) -> Odd:
        """Run it to its end. Fails for a traceback on stderr."""
        done = subprocess.run(
            command_line("worker", str(self.folder / "odd.py"), *args),
            cwd=cwd or self.folder,
            env=environment(),
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=limit,
        )
        self._ended(done.returncode, done.stdout, done.stderr.decode())
        return self

    def files(self, data: bytes, *args: str) -> Odd:
        """Run it from ``in.jsonl`` to ``done.jsonl``."""
        (self.folder / "in.jsonl").write_bytes(data)
        return self.run("--in", "in.jsonl", "--out", "done.jsonl", *args)

    @contextmanager
    def running(self, *args: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start it, with stderr in the file ``log``; at the end of the block it has ended or is killed."""
        with (self.folder / "log").open("ab") as log:
            process = start("worker", "./odd.py", *args, cwd=self.folder, **{"stderr": log, **options})
        try:
            yield process
            process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()
            out = b"" if process.stdout is None or process.stdout.closed else process.stdout.read()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        self._ended(process.returncode, out, self.log)

    def _ended(self, code: int, out: bytes, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err, err

    def begun(self, deed: str) -> int:
        """Wait until such a task has begun; the process that does it."""
        path = self.folder / f"begun-{deed}"
        wait_until(path.exists)
        return int(path.read_text())

    def ask(self, path: str) -> tuple[int, str]:
        """What the status port of the running instance answers."""
        wait_until(lambda: '"url":"' in self.log)
        url = self.log.rpartition('"url":"')[2].partition('"')[0]
        try:
            with urlopen(url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def stopping(self) -> None:
        """Wait until the running instance receives no more."""
        wait_until(lambda: self.ask("readyz") == (503, "not receiving\n"))

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def done(self) -> list[dict[str, Any]]:
        """The done tasks in its output file."""
        return read_lines(self.folder / "done.jsonl")

    @property
    def letters(self) -> list[dict[str, Any]]:
        """The dead letters beside it."""
        return read_lines(self.folder / "done.jsonl.dead")

    def dead(self) -> list[tuple[str, bytes]]:
        """Of each dead letter the code and the original bytes."""
        return [(letter["code"], original(letter)) for letter in self.letters]


def publish(url: str, *bodies: bytes | Task, topic: str = "odd") -> None:
    """Put these on a bus, as they are."""

    async def send() -> None:
        messages = [Message(topic, encode(body) if isinstance(body, Task) else body) for body in bodies]
        async with bus.connect(url) as connection, await connection.producer() as producer:
            await producer.publish_many(messages)

    asyncio.run(send())


def taken(url: str, topic: str) -> list[dict[str, Any]]:
    """Everything that is in a topic now, as JSON, each received and acknowledged."""

    async def take() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with bus.connect(url) as connection, await connection.consumer(topic, "test") as consumer:
            while batch := await consumer.receive(1000, timeout=0.05):
                await consumer.ack(batch)
                found += [json.loads(delivery.body) for delivery in batch]
        return found

    return asyncio.run(take())


def pending(url: str, topic: str = "odd", group: str = "odd") -> bus.Depth:
    """What is pending there."""

    async def ask() -> bus.Depth:
        async with bus.connect(url) as connection:
            return await connection.depth(topic, group)

    return asyncio.run(ask())


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in ``folder``. Skips the test where that is not permitted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
