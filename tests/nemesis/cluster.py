"""What faults act on: a bus, its broker and proxy, the workers, the sender, the observer, and the ledger."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import bus
from bus import BusError, Message
from tests.nemesis.brokers import Served
from tests.nemesis.fleet import Fleet
from tests.nemesis.footprint import Footprint, footprint
from tests.nemesis.ledger import Event, Ledger, Pen
from tests.taskbus_command import environment

__all__ = ["Cluster"]

#: Seconds the sender and the observer have to end.
_ENDING = 30.0


class Cluster:
    """One trial's processes. ``with`` ends them; :meth:`start` starts them."""

    def __init__(self, name: str, folder: Path, served: Served, *, workers: int = 3, spare_first: bool = False) -> None:
        #: Of the bus: ``nats``.
        self.bus = name
        self.folder = folder
        #: ``lease``: seconds that a delivery stays with a worker which does not extend it.
        self.url, self.direct, self.version, self.broker, self.proxy, self.lease = served
        self.durability = bus.connect(self.direct).capabilities.durability
        self.ledger = Ledger(folder / "ledger")
        self.fleet = Fleet(
            folder, self.url, workers, "--retries", "5", "--retry-delay", "100ms", spare_first=spare_first
        )
        #: How often each fault struck, by name.
        self.strikes: Counter[str] = Counter()
        self.observer: subprocess.Popen[bytes] | None = None
        self.sender: subprocess.Popen[bytes] | None = None
        self._sending: tuple[str, ...] = ()
        self._pens: dict[Event, Pen] = {}
        self._lock = Lock()
        self._publishing = Lock()

    def start(self) -> None:
        """Start the observer and the workers."""
        self.observer = self._run("observer", self.direct, str(self.ledger.folder))
        self.fleet.start()

    def send(self, *, tasks: int, rate: float, seed: int) -> None:
        """Start the sender: so many tasks, so many a second."""
        self._sending = ("sender", self.url, str(self.ledger.folder), str(tasks), str(rate), str(seed))
        self.sender = self._run(*self._sending)

    def kill_sender(self) -> bool:
        """``kill -9`` of the sender, and start it again to go on. Returns whether it still ran."""
        if self.sender is None or self.sender.poll() is not None:
            return False
        self.sender.kill()
        self.sender.wait(_ENDING)
        self.sender = self._run(*self._sending)
        return True

    def count(self, fault: str, strikes: int = 1) -> None:
        """Note that a fault struck."""
        with self._lock:
            self.strikes[fault] += strikes

    def publish(self, topic: str, messages: Sequence[tuple[str, bytes]], *, copies: bool = False) -> None:
        """Publish (id, body) past the proxy, with entries in the ledger, trying until confirmed.

        With ``copies`` they are tasks that were accepted before, and each has to be executed once more.
        """
        with self._publishing:
            asyncio.run(
                self._publish([id for id, _ in messages], [Message(topic, body) for _, body in messages], copies)
            )

    def footprints(self) -> list[Footprint]:
        """Of the processes of ours that are never harmed: the worker that is spared, and the observer."""
        pids = [("worker", pid) for pid in self.fleet.pids[:1]]
        if self.observer is not None:
            pids.append(("observer", self.observer.pid))
        return [found for name, pid in pids if (found := footprint(name, pid)) is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fleet.stop()
        for process in (self.sender, self.observer):
            if process is not None:
                process.terminate()
                try:
                    process.wait(_ENDING)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _pen(self, event: Event) -> Pen:
        if event not in self._pens:
            self._pens[event] = Pen(self.ledger.folder, event, f"nemesis-{id(self):x}")
        return self._pens[event]

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"tests.nemesis.programs.{program}", *arguments]
        with (self.folder / f"{program}.log").open("ab") as log:
            root = str(Path(__file__).parents[2])
            return subprocess.Popen(command, env=environment(), cwd=root, stdout=log, stderr=log)

    async def _publish(self, ids: list[str], messages: list[Message], copies: bool) -> None:
        async with bus.connect(self.direct) as b, await b.producer() as producer:
            copy = copies
            while True:
                # The first publish of a copy is no second attempt of the task.
                self._pen(Event.ATTEMPTED).write([] if copy else ids)
                try:
                    await producer.publish_many(messages)
                    break
                except BusError as error:
                    if not error.transient:
                        raise
                    copy = False
                    await asyncio.sleep(0.1)
        self._pen(Event.COPIED if copies else Event.ACCEPTED).write(ids)
