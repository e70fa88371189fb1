"""Entry point of the ``taskbus`` command."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    try:
        # Imported here so that a Ctrl-C during the imports is as quiet as one later.
        from task.collector import calm_collector
        from task.streams import keep_standard_streams

        keep_standard_streams()
        from apps.cli.errors import run
        from apps.cli.group import cli

        calm_collector()
        code = run(cli, sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
