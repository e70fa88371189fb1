"""A server of ours as a process: started, stopped, killed and frozen, on the same ports and data."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

__all__ = ["CACHE", "ServerProcess", "free_port"]

#: Where servers that are fetched or built are kept, outside the tree.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskbus" / "brokers"
#: Seconds a server has to end by itself.
_ENDING = 60.0


def free_port(wanted: int | None = None) -> int:
    """A port on loopback that nobody listens on: ``wanted`` if that is one."""
    with socket.socket() as probe:
        # A port whose connections have just ended is free for a server, which would say so too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


class ServerProcess(ABC):
    """One server. Its data lives in ``folder`` and outlasts restarts."""

    #: Seconds until it must answer.
    patience = 30.0

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._name = name
        self._log = folder / f"{name}.log"
        self._before = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What starts it. Skips the test, or fails it in CI, where it cannot be had."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it can be used."""

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise RuntimeError(f"{self._name} does not run")
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written since it was started last."""
        return self._log.read_text(errors="replace")[self._before :]

    def start(self) -> None:
        """Start it and return when it answers. Raises RuntimeError."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it and return at once."""
        command = self.command()
        with self._log.open("ab") as log:
            self._before = len(self._log.read_text(errors="replace"))
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Return when it answers. Raises RuntimeError."""
        deadline = time.monotonic() + self.patience
        while not self.answers():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                what = "ended" if ended else f"does not answer within {self.patience:g} s"
                raise RuntimeError(f"{self._name} {what}: {self.log[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it cleanly."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End it cleanly and start it again."""
        self.stop()
        self.start()

    def kill_and_start(self) -> None:
        """SIGKILL, and start it again."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Let it stand still: connections stay open and nothing is answered."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.send_signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Inside, it runs."""
        try:
            self.start()
            yield self
        finally:
            self.kill()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_ENDING)
