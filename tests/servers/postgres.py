"""A real PostgreSQL server of our own, in a temporary folder, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

from tests.servers import missing, need_servers

__all__ = ["PostgresServer"]

_INSTALLED = Path("/usr/lib/postgresql")
#: The server does not run as root; as root we run it as the user its package makes.
_USER = "postgres" if os.geteuid() == 0 else None
_SECONDS = 60


class PostgresServer:
    """One server. ``stop`` ends it and removes its folder."""

    def __init__(self) -> None:
        need_servers()
        self._programs = _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="taskbus-postgres-"))
        if _USER:
            shutil.chown(self.folder, _USER)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count()
        made = subprocess.run(
            [self._programs / "initdb", "-D", self.folder / "data", "-U", "taskbus", "-A", "trust", "-E", "UTF8"],
            user=_USER,
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=_SECONDS,
        )
        assert made.returncode == 0, made.stderr

    def start(self) -> None:
        """Start and return when it answers."""
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._command("postgres"), "-D", self.folder / "data", "-k", self.folder],
                user=_USER,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if subprocess.run([*self._command("pg_isready"), "-q"], timeout=_SECONDS).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"postgres did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def new(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(self._names)}"
        subprocess.run([*self._command("createdb"), "-U", "taskbus", name], check=True, timeout=_SECONDS)
        return f"postgresql://taskbus:canary-password@127.0.0.1:{self.port}/{name}"

    def kill_and_start(self) -> None:
        """End it without a farewell, and start it again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_SECONDS)
        self.start()

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_SECONDS)
        shutil.rmtree(self.folder)

    def _command(self, name: str) -> list[str | Path]:
        return [self._programs / name, "-h", "127.0.0.1", "-p", str(self.port)]


def _programs() -> Path:
    versions = sorted(_INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if not versions:
        missing("PostgreSQL is not installed: apt-get install postgresql")
    return versions[-1].parent
