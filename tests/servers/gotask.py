"""The public Go toolkit ``github.com/pcelvng/task``, built once into a cache outside the tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import need_servers

__all__ = ["VERSION", "programs"]

VERSION = "0.8.0"
_SOURCE = Path(__file__).parent / "go" / "main.go"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskbus" / f"go-task-{VERSION}"
_MODULE = f"""module taskbus.local/gotask

go 1.17

require github.com/pcelvng/task v{VERSION}
"""
#: Programs of the toolkit itself.
_QUICKSTART = "github.com/pcelvng/task/quickstart/taskmaster"


def programs() -> tuple[Path, Path]:
    """Ours made with the toolkit, and its own quickstart taskmaster. Skips where they cannot be had, unless in CI."""
    need_servers()
    folder = _CACHE / hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    found = folder / "gotask", folder / "taskmaster"
    if not all(path.exists() for path in found):
        trouble = _build(folder)
        if trouble:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no Go toolkit: {trouble}")
    return found


def _build(folder: Path) -> str:
    go = shutil.which("go")
    if go is None:
        return "Go is not installed"
    module = folder / "module"
    module.mkdir(parents=True, exist_ok=True)
    (module / "go.mod").write_text(_MODULE)
    shutil.copy(_SOURCE, module / "main.go")
    made = subprocess.run(
        [go, "install", "-mod=mod", ".", _QUICKSTART],
        cwd=module,
        env=os.environ | {"GOBIN": str(folder)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return made.stderr[-500:] if made.returncode else ""
