"""``python -m task worker TARGET …``: a worker application around the user's own module.

``taskbus worker`` starts user code here, in a process that never imports this project's ``apps``, ``workers`` and
``taskmasters``: users may have packages of those names.
"""

from __future__ import annotations

import contextlib
import os
import sys

from task.errors import WorkerError
from task.exits import Exit


def main(args: list[str]) -> int:
    """Load the worker and run it as a command."""
    if len(args) < 2 or args[0] != "worker":
        sys.stderr.write("usage: python -m task worker FILE.py[:NAME] | MODULE:NAME [OPTIONS]\n")
        return Exit.USAGE
    import click  # noqa: F401  (before the user's folder comes first, where a click.py would hide it)

    from task.app import run_command
    from task.collector import calm_collector
    from task.load import load_launch

    # As `python -m` would have it; the command was started with -P so that no file here hides a package of ours.
    sys.path.insert(0, os.getcwd())
    try:
        # Standard output is for done tasks; what the user's module prints when it is imported is none.
        with contextlib.redirect_stdout(sys.stderr):
            launch = load_launch(args[1])
    except WorkerError as error:
        sys.stderr.write(f"taskbus: error: {error}\n")
        return Exit.USAGE
    calm_collector()
    return run_command(launch, args[2:], prog_name=f"taskbus worker {args[1]}")


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
