"""The Pub/Sub emulator of the Google Cloud CLI, on a free loopback port. It keeps everything in memory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import need_servers

__all__ = ["PubsubEmulator", "pubsub_emulator"]

_WHERE = (
    "/usr/lib/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/snap/google-cloud-cli/current",
    str(Path.home() / "google-cloud-sdk"),
)


@contextmanager
def pubsub_emulator(folder: Path, *more: str) -> Iterator[PubsubEmulator]:
    """A running emulator for a test. Skips where it is not asked for or not there; in CI the latter is a failure."""
    need_servers()
    try:
        _command()
    except RuntimeError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    server = PubsubEmulator(folder, *more)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class PubsubEmulator:
    """One emulator. ``more`` may name the projects that exist; by default any does. Needs no pytest."""

    def __init__(self, folder: Path, *more: str, port: int | None = None) -> None:
        self.port = port or _free_port()
        self.folder = folder
        self.more = more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What ``emulator=`` takes."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The bus URL; more options follow with ``&``."""
        return f"pubsub://taskbus-test?emulator={self.address}"

    def start(self) -> None:
        """Start and return when it answers.

        Raises:
            RuntimeError: it is not on this machine, or does not start.
        """
        log_path = self.folder / f"pubsub-{self.port}.log"
        with log_path.open("ab") as log:
            before = log.tell()
            command = [*_command(), "--host=127.0.0.1", f"--port={self.port}", *self.more]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            if "Server started" in log_path.read_text(errors="replace")[before:]:
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the Pub/Sub emulator did not start: {log_path.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it. What it held is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def restart(self) -> None:
        """End it and start it again, empty."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def kill_and_start(self) -> None:
        """SIGKILL and start again, empty."""
        self.kill()
        self.start()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _command() -> list[str]:
    """How the emulator is started. ``gcloud`` would start it as a grandchild, which SIGKILL leaves alone."""
    given = os.environ.get("TASKBUS_PUBSUB_EMULATOR")
    jar = Path(given) if given else _jar()
    java = shutil.which("java")
    if jar is None or not jar.exists():
        trouble = "the Pub/Sub emulator of the Google Cloud CLI is not on this machine: " + (
            f"{given}, which TASKBUS_PUBSUB_EMULATOR names, is no file"
            if given
            else "gcloud components install pubsub-emulator (or name its jar in TASKBUS_PUBSUB_EMULATOR)"
        )
    elif java is None:
        trouble = "the Pub/Sub emulator needs Java 11 or newer"
    else:
        return [java, "-Xmx1g", "-jar", str(jar)]
    raise RuntimeError(trouble)


def _jar() -> Path | None:
    roots = list(_WHERE)
    gcloud = shutil.which("gcloud")
    if gcloud is not None:
        roots.insert(0, str(Path(gcloud).resolve().parent.parent))
        if not any((Path(root) / "platform/pubsub-emulator").exists() for root in roots):
            command = [gcloud, "info", "--format=value(installation.sdk_root)"]
            told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            roots.insert(0, told.stdout.strip() or roots[0])
    for root in roots:
        found = sorted(Path(root).glob("platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"))
        if found:
            return found[-1]
    return None
