"""Real nsqd and nsqlookupd, built once into a cache outside the tree and run on free loopback ports."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.servers import missing, need_servers
from tests.servers.process import CACHE, ServerProcess, free_port

__all__ = ["VERSION", "Lookupd", "Nsqd", "binaries"]

VERSION = "1.3.0"
_CACHE = CACHE / f"nsq-{VERSION}"
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
            missing(f"no nsqd: {trouble}")
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


class _Server(ServerProcess):
    """One of NSQ's programs."""

    program = ""

    def __init__(self, folder: Path, *args: str, tcp: int | None = None, http: int | None = None) -> None:
        self.tcp, self.http = tcp or free_port(), http or free_port()
        super().__init__(folder, f"{self.program}-{self.tcp}")
        self._args = args

    def command(self) -> Sequence[str | Path]:
        """See :class:`ServerProcess`."""
        return [
            binaries() / self.program,
            f"-tcp-address=127.0.0.1:{self.tcp}",
            f"-http-address=127.0.0.1:{self.http}",
            "-broadcast-address=127.0.0.1",
            *self._args,
        ]

    def answers(self) -> bool:
        """See :class:`ServerProcess`."""
        try:
            with urlopen(f"http://127.0.0.1:{self.http}/ping", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


class Nsqd(_Server):
    """One nsqd with a data path of its own."""

    program = "nsqd"

    def __init__(self, folder: Path, *args: str, tcp: int | None = None, http: int | None = None) -> None:
        super().__init__(folder, *args, tcp=tcp, http=http)
        self.https = free_port()
        self._data = folder / f"data-{self.tcp}"
        self._data.mkdir(exist_ok=True)

    def command(self) -> Sequence[str | Path]:
        """See :class:`ServerProcess`."""
        return [*super().command(), f"-https-address=127.0.0.1:{self.https}", f"-data-path={self._data}"]

    def url(self, **options: str) -> str:
        """The URL of this one, with the HTTP port."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"nsq://127.0.0.1:{self.tcp}?http={self.http}{more}"


class Lookupd(_Server):
    """One nsqlookupd."""

    program = "nsqlookupd"
