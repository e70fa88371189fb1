"""Workers as processes, kept alive by a supervisor, as an orchestrator would."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.nemesis.ledger import Event
from tests.taskbus_command import command_line, environment

__all__ = ["Fleet"]

_WORKER = Path(__file__).parent / "programs" / "noted.py"
_TICK = 0.05
#: Seconds a worker has to end after SIGTERM.
_ENDING = 60.0
#: What a worker logs when it begins to receive.
_WORKS = b'"event":"started"'
#: A worker that cannot reach its bus when it is started ends with this code, and is to be started again.
_NO_BUS = 3
#: Exit codes that are in order after a signal of ours: ended, stopped while its bus was away, or when the kill time was
#: over, killed.
_TOLD = (0, 3, 4, -signal.SIGKILL, -signal.SIGTERM)


class Fleet:
    """A number of workers. One that ends, however, is started again until the fleet is stopped."""

    def __init__(self, folder: Path, url: str, size: int, *options: str, spare_first: bool = False) -> None:
        self.folder = folder
        self.url = url
        #: More options of ``taskbus worker``, for workers started from now on.
        self.options: list[str] = list(options)
        #: More environment, for workers started from now on.
        self.env: dict[str, str] = {}
        #: Exit codes of workers that ended though nobody had told them to, with their logs.
        self.unexpected: list[tuple[int, str]] = []
        #: How often a worker that was started did not find its bus, and said so.
        self.refused = 0
        self._size = size
        self._spared = int(spare_first)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._logs: dict[int, Path] = {}
        self._told: set[int] = set()
        self._ending: set[int] = set()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._started = 0

    def start(self) -> None:
        """Start the workers, and keep them."""
        self._thread.start()

    def stop(self) -> list[int]:
        """End all with SIGTERM. Returns their exit codes."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        codes = []
        for worker in workers:
            try:
                codes.append(worker.wait(_ENDING))
            except subprocess.TimeoutExpired:
                worker.kill()
                codes.append(worker.wait(_ENDING))
        return codes

    @property
    def pids(self) -> list[int]:
        """Of the workers that run, the oldest first."""
        with self._lock:
            return [worker.pid for worker in self._workers if worker.poll() is None]

    def victims(self, *, working: bool = True) -> list[int]:
        """Those that may be harmed: not told to end yet and, unless told otherwise, with a task begun."""
        pids = [pid for pid in self.pids[self._spared :] if pid not in self._ending]
        return [pid for pid in pids if not working or self._has_worked(pid)]

    def victim(self, dice: Random, *, working: bool = True) -> int | None:
        """One of them; None if there is none now."""
        pids = self.victims(working=working)
        return dice.choice(pids) if pids else None

    def send_signal(self, pid: int, number: signal.Signals) -> None:
        """Send one a signal. That it ends then is no surprise."""
        with self._lock:
            for worker in self._workers:
                if worker.pid == pid and worker.poll() is None:
                    self._told.add(pid)
                    if number == signal.SIGTERM:
                        self._ending.add(pid)
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)

    def scale(self, size: int) -> None:
        """Have that many from now on. Those too many are ended with SIGTERM, the newest first."""
        with self._lock:
            self._size = size
            for worker in self._workers[size:]:
                self.send_signal(worker.pid, signal.SIGTERM)

    @property
    def size(self) -> int:
        """How many there are to be."""
        return self._size

    @property
    def working(self) -> bool:
        """Whether there are as many as there are to be, and all receive."""
        with self._lock:
            logs = list(self._logs.values())
        return len(logs) == self._size and all(_WORKS in log.read_bytes() for log in logs)

    def _has_worked(self, pid: int) -> bool:
        path = self.folder / "ledger" / f"{Event.EXECUTED}.{pid}"
        return path.exists() and path.stat().st_size > 0

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                for worker in list(self._workers):
                    code = worker.poll()
                    if code is not None:
                        self._workers.remove(worker)
                        self._note(worker.pid, code)
                while len(self._workers) < self._size:
                    self._workers.append(self._launch())
            time.sleep(_TICK)

    def _note(self, pid: int, code: int) -> None:
        """Look at how one ended."""
        log = self._logs.pop(pid)
        if code == _NO_BUS and _WORKS not in log.read_bytes():
            self.refused += 1
        elif pid not in self._told or code not in _TOLD:
            self.unexpected.append((code, log.name))
        self._told.discard(pid)
        self._ending.discard(pid)

    def _launch(self) -> subprocess.Popen[bytes]:
        self._started += 1
        command: Sequence[str] = command_line(
            "worker", str(_WORKER), "--bus", self.url, "--log-format", "json", *self.options
        )
        path = self.folder / f"worker-{self._started:04d}.log"
        with path.open("wb") as log:
            worker = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment({"NEMESIS_LEDGER": str(self.folder / "ledger")} | self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._logs[worker.pid] = path
        return worker
