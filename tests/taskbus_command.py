"""The ``taskbus`` command as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Result", "command_line", "environment", "start", "taskbus"]

#: Seconds a command may take.
LIMIT = 60


class Result:
    """What came of a command."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode()
        self.err = err.decode()

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """The JSON lines of its output."""
        return [json.loads(line) for line in self.out.splitlines()]

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def command_line(*args: str) -> list[str]:
    """The command as it is installed beside the running interpreter."""
    return [str(Path(sys.executable).parent / "taskbus"), *args]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without settings of taskbus, and with ``extra``."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TASKBUS_")}
    return env | {"PYTHONWARNINGS": "error"} | dict(extra or {})


def taskbus(*args: str, cwd: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Result:
    """Run ``taskbus`` to its end."""
    done = subprocess.run(
        command_line(*args), cwd=cwd, input=stdin, capture_output=True, env=environment(env), timeout=LIMIT
    )
    result = Result(done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in result.err, result
    return result


def start(*args: str, cwd: Path, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Start ``taskbus`` with its outputs as pipes."""
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command_line(*args), cwd=cwd, env=environment(env), text=False, **(streams | options))
