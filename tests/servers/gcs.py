"""fake-gcs-server, which speaks Google Cloud Storage's JSON API, built once into a cache outside the tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from tests.servers import missing, need_servers
from tests.servers.process import CACHE, ServerProcess, free_port

__all__ = ["VERSION", "GcsServer"]

VERSION = "1.52.2"
_CACHE = CACHE / f"gcs-{VERSION}"
_NAME = "fake-gcs-server"


def binary() -> Path:
    """The program. Skips where it cannot be had; with ``CI`` set that is a failure."""
    need_servers()
    if not (_CACHE / _NAME).exists():
        trouble = _build()
        if trouble:
            missing(f"no {_NAME}: {trouble}")
    return _CACHE / _NAME


def _build() -> str:
    go = shutil.which("go")
    if go is None:
        return "Go is not installed"
    _CACHE.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        [go, "install", f"github.com/fsouza/{_NAME}@v{VERSION}"],
        env=os.environ | {"GOBIN": str(_CACHE)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    return made.stderr[-500:] if made.returncode else ""


class GcsServer(ServerProcess):
    """One server, with everything in memory."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__(folder, f"gcs-{self.port}")

    @property
    def url(self) -> str:
        """What clients call its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str | Path]:
        """See :class:`ServerProcess`."""
        return [
            binary(),
            *("-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)),
            *("-public-host", f"127.0.0.1:{self.port}", "-external-url", self.url, "-backend", "memory"),
        ]

    def answers(self) -> bool:
        """See :class:`ServerProcess`."""
        try:
            with urlopen(f"{self.url}/storage/v1/b?project=test", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, HTTPError, OSError):
            return False

    def make_bucket(self, name: str) -> None:
        """A new bucket."""
        self._post("/storage/v1/b?project=test", json.dumps({"name": name}).encode())

    def put(self, bucket: str, name: str, body: bytes) -> None:
        """An object, or a new version of it."""
        self._post(f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}", body)

    def _post(self, path: str, body: bytes) -> None:
        request = Request(self.url + path, body, {"Content-Type": "application/json"}, method="POST")
        with urlopen(request, timeout=10) as answer:
            answer.read()
