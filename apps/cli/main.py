"""Entry point of the ``taskbus`` command."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    _keep_standard_numbers()
    try:
        # Imported here so that a Ctrl-C during the imports is as quiet as one later.
        from apps.cli.errors import run
        from apps.cli.group import cli

        code = run(cli, sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _keep_standard_numbers() -> None:
    """Take the numbers of standard streams that are closed, so that no file of a bus gets one and is written into.

    Opened the wrong way round, so that using them is still an error.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, and those below are in use by now.
            os.set_inheritable(os.open(os.devnull, flags), True)


if __name__ == "__main__":
    main()
