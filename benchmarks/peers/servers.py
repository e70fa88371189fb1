"""The servers that only peers need, as Debian installs them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.servers import missing
from tests.servers.process import ServerProcess, free_port

__all__ = ["RabbitMQ", "Redis"]


class Redis(ServerProcess):
    """Appends to a file and syncs that every second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "redis-server")
        self._port = free_port()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://127.0.0.1:{self._port}/0"

    def command(self) -> Sequence[str | Path]:
        """See :class:`ServerProcess`."""
        program = shutil.which("redis-server")
        if program is None:
            missing("redis-server is not installed: apt install redis-server")
        return [program, "--bind", "127.0.0.1", "--port", str(self._port), "--dir", self.folder, "--appendonly", "yes"]

    def answers(self) -> bool:
        """See :class:`ServerProcess`."""
        return "Ready to accept connections" in self.log


class RabbitMQ(ServerProcess):
    """One node, without plugins. The port mapper of Erlang, ``epmd``, goes on running."""

    #: The one on the path becomes another user first, who cannot write here.
    _PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    patience = 90.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "rabbitmq-server")
        self._port, self._nodes = free_port(), free_port()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}"

    def command(self) -> Sequence[str | Path]:
        """See :class:`ServerProcess`."""
        if not self._PROGRAM.exists():
            missing("rabbitmq-server is not installed: apt install rabbitmq-server")
        variables = {
            "HOME": self.folder,
            "RABBITMQ_NODENAME": f"peer{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": self._port,
            "RABBITMQ_DIST_PORT": self._nodes,
            "RABBITMQ_MNESIA_BASE": self.folder / "data",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.folder / "plugins",
            "RABBITMQ_LOGS": "-",
        }
        # Where it stands it leaves dumps.
        return ["env", "-C", self.folder, *(f"{name}={value}" for name, value in variables.items()), self._PROGRAM]

    def answers(self) -> bool:
        """See :class:`ServerProcess`."""
        return "Server startup complete" in self.log

    def kill(self) -> None:
        """Only this is handed on by the script that starts it."""
        self.stop()
