"""Real nsqd and nsqlookupd, built once into a cache outside the tree and run on free loopback ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.servers import need_servers

__all__ = ["VERSION", "Lookupd", "Nsqd", "binaries"]

VERSION = "1.3.0"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskbus" / "brokers" / f"nsq-{VERSION}"
#: `go install …/nsqd@v1.3.0` refuses a module whose go.mod replaces a dependency, as this one's does.
_MODULE = f"""module taskbus.local/nsq

go 1.17

require github.com/nsqio/nsq v{VERSION}

replace github.com/judwhite/go-svc => github.com/mreiferson/go-svc v1.2.2-0.20210815184239-7a96e00010f6
"""


def binaries() -> Path:
    """The folder of the programs. Skips where they cannot be had; with ``CI`` set that is a failure."""
    need_servers()
    if not all((_CACHE / name).exists() for name in ("nsqd", "nsqlookupd")):
        trouble = _build()
        if trouble:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no nsqd: {trouble}")
    return _CACHE


def _build() -> str:
    go = shutil.which("go")
    if go is None:
        return "Go is not installed"
    module = _CACHE / "module"
    module.mkdir(parents=True, exist_ok=True)
    (module / "go.mod").write_text(_MODULE)
    apps = [f"github.com/nsqio/nsq/apps/{name}" for name in ("nsqd", "nsqlookupd")]
    made = subprocess.run(
        [go, "install", "-mod=mod", *apps],
        cwd=module,
        env=os.environ | {"GOBIN": str(_CACHE)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return made.stderr[-500:] if made.returncode else ""


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class _Server:
    """A program that can be stopped, killed and started again on the same ports and data."""

    program = ""

    def __init__(self, folder: Path, *args: str, tcp: int | None = None, http: int | None = None) -> None:
        self.tcp, self.http = tcp or _free_port(), http or _free_port()
        self._args = args
        self._log = folder / f"{self.program}-{self.tcp}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running program."""
        if self._process is None:
            raise RuntimeError(f"{self.program} does not run")
        return self._process.pid

    def command(self) -> list[str]:
        return [
            f"-tcp-address=127.0.0.1:{self.tcp}",
            f"-http-address=127.0.0.1:{self.http}",
            "-broadcast-address=127.0.0.1",
            *self._args,
        ]

    def start(self) -> None:
        """Start, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([binaries() / self.program, *self.command()], stdout=log, stderr=log)
        try:
            self._await_answer(self._process)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 20
        while not self._answers():
            text = self._log.read_text()[-500:]
            assert process.poll() is None, f"{self.program} ended: {text}"
            assert time.monotonic() < deadline, f"{self.program} does not answer: {text}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.http}/ping", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs, and wait until it has."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def restart(self) -> None:
        """Stop it cleanly and start it again."""
        self.end()
        self.start()

    def kill(self) -> None:
        """kill -9, and start it again."""
        self.end(signal.SIGKILL)
        self.start()


class Nsqd(_Server):
    """One nsqd with a data path of its own."""

    program = "nsqd"

    def __init__(self, folder: Path, *args: str, tcp: int | None = None, http: int | None = None) -> None:
        super().__init__(folder, *args, tcp=tcp, http=http)
        self.https = _free_port()
        self._data = folder / f"data-{self.tcp}"
        self._data.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        return [*super().command(), f"-https-address=127.0.0.1:{self.https}", f"-data-path={self._data}"]

    def url(self, **options: str) -> str:
        """The URL of this one, with the HTTP port."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"nsq://127.0.0.1:{self.tcp}?http={self.http}{more}"


class Lookupd(_Server):
    """One nsqlookupd."""

    program = "nsqlookupd"
