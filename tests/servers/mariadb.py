"""A real MariaDB server of our own, in a temporary folder, on a free loopback port."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

from tests.servers import missing, need_servers

__all__ = ["MariadbServer"]

_SECONDS = 60


class MariadbServer:
    """One server. ``stop`` ends it and removes its folder."""

    def __init__(self) -> None:
        need_servers()
        server, install = _program("mariadbd"), _program("mariadb-install-db")
        self.folder = Path(tempfile.mkdtemp(prefix="taskbus-mariadb-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count()
        user = getpass.getuser()
        made = subprocess.run(
            [
                install,
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--user={user}",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        assert made.returncode == 0, made.stderr + made.stdout
        self._command = [server, "--no-defaults", f"--datadir={self.folder / 'data'}", f"--port={self.port}"]
        self._command += ["--bind-address=127.0.0.1", f"--socket={self.folder / 'socket'}", f"--user={user}"]
        self._command += [f"--pid-file={self.folder / 'pid'}"]

    def start(self) -> None:
        """Start and return when it answers."""
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._sql("SELECT 1").returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"mariadbd did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def new(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(self._names)}"
        made = self._sql(
            f"CREATE DATABASE {name}; CREATE USER IF NOT EXISTS taskbus@'%' IDENTIFIED BY 'canary-password'; "
            f"GRANT ALL ON {name}.* TO taskbus@'%'"
        )
        assert made.returncode == 0, made.stderr
        return f"mysql://taskbus:canary-password@127.0.0.1:{self.port}/{name}"

    def kill_and_start(self) -> None:
        """SIGKILL, and start again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_SECONDS)
        self.start()

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_SECONDS)
        shutil.rmtree(self.folder)

    def _sql(self, statement: str) -> subprocess.CompletedProcess[str]:
        client = [_program("mariadb"), "--no-defaults", f"--socket={self.folder / 'socket'}", "-u", "root"]
        return subprocess.run([*client, "-e", statement], capture_output=True, text=True, timeout=_SECONDS)


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        missing(f"{name} is not installed: apt-get install mariadb-server")
    return found
