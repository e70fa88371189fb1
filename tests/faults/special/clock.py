"""A clock of the machine that a test can set, for the processes it starts."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["MachineClock"]


class MachineClock:
    """Shows the true time until it is set. Skips the test where there is no C compiler."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None or not sys.platform.startswith("linux"):
            pytest.skip("setting the clock of a process takes Linux and a C compiler (apt install gcc libc6-dev)")
        library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self._file = folder / "ahead"
        self.set(0)
        #: Of processes that are to see it.
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(self._file)}

    def set(self, ahead: float) -> None:
        """Show that many seconds more than the true time, at once and to all."""
        with open(self._file, "r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", round(ahead * 1e9)))
