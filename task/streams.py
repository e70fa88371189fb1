"""Standard streams that were closed when the program was started."""

from __future__ import annotations

import os
import sys

__all__ = ["keep_standard_streams"]


def keep_standard_streams() -> None:
    """Take the numbers of standard streams that are closed, so that no file of a bus gets one and is written into.

    Input and output are opened the wrong way round, so that using them is still an error; what is written to standard
    error vanishes.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, and those below are in use by now.
            os.set_inheritable(os.open(os.devnull, flags), True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - it is standard error from now on
