"""The Pub/Sub emulator of the Google Cloud CLI, on a loopback port. It keeps everything in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import missing, need_servers
from tests.servers.process import ServerProcess, free_port

__all__ = ["PubsubEmulator", "pubsub_emulator"]

_WHERE = (
    "/usr/lib/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/snap/google-cloud-cli/current",
    str(Path.home() / "google-cloud-sdk"),
)


@contextmanager
def pubsub_emulator(folder: Path, *arguments: str) -> Iterator[PubsubEmulator]:
    """A running emulator for a test. Skips where it is not asked for or not there; in CI the latter is a failure."""
    need_servers()
    with PubsubEmulator(folder, *arguments).running() as server:
        yield server


class PubsubEmulator(ServerProcess):
    """One emulator. ``arguments`` may name the projects that exist (``--projects=one,two``); by default any does."""

    patience = 60.0

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        super().__init__(folder, f"pubsub-emulator-{self.port}")
        self._arguments = arguments

    @property
    def address(self) -> str:
        """What ``emulator=`` takes."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The bus URL; more options follow with ``&``."""
        return f"pubsub://taskbus-test?emulator={self.address}"

    def command(self) -> Sequence[str | Path]:
        """See :class:`ServerProcess`. ``gcloud`` would start it as a grandchild, which SIGKILL leaves alone."""
        given = os.environ.get("TASKBUS_PUBSUB_EMULATOR")
        jar = Path(given) if given else _jar()
        java = shutil.which("java")
        if jar is None or not jar.exists():
            missing(
                "the Pub/Sub emulator of the Google Cloud CLI is not on this machine: "
                + (
                    f"{given}, which TASKBUS_PUBSUB_EMULATOR names, is no file"
                    if given
                    else "gcloud components install pubsub-emulator (or name its jar in TASKBUS_PUBSUB_EMULATOR)"
                )
            )
        if java is None:
            missing("the Pub/Sub emulator needs Java 11 or newer")
        return [java, "-Xmx1g", "-jar", jar, "--host=127.0.0.1", f"--port={self.port}", *self._arguments]

    def answers(self) -> bool:
        """See :class:`ServerProcess`."""
        return "Server started" in self.log


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
