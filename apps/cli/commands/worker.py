"""``taskbus worker``: run a worker application."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from bus.url import nearest
from task.errors import WorkerError
from workers.registry import BUILT_IN

__all__ = ["command"]

#: ``hello.py``, ``hello.py:Class`` or ``package.module:Class``.
_OWN = re.compile(r".+\.py(:[\w.]+)?|[\w.]+:[\w.]+")


@click.command(
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    options_metavar="",
    epilog="Built in: " + ", ".join(BUILT_IN) + ". What a worker takes is told by: taskbus worker TARGET --help",
)
@click.argument("target")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
def command(target: str, options: tuple[str, ...]) -> int:
    """Run the worker TARGET: a built-in name, a file (./hello.py or ./hello.py:Class), or package.module:Class."""
    if target.startswith("-"):
        raise click.UsageError(f"options come after the worker: taskbus worker TARGET {target} …")
    if target in BUILT_IN:
        module, _, name = BUILT_IN[target].partition(":")
        application: Callable[[Sequence[str], str], int] = getattr(importlib.import_module(module), name)
        return application(options, f"taskbus worker {target}")
    if not _OWN.fullmatch(target):
        raise WorkerError(
            f"no built-in worker is called {target!r}{nearest(target, list(BUILT_IN))}\n"
            "A worker of yours is written ./file.py, ./file.py:Class or package.module:Class."
        )
    return _run_own(target, options)


def _run_own(target: str, options: Sequence[str]) -> NoReturn:
    # A fresh interpreter without the current folder on its path: the user may have packages called apps or workers,
    # and files that are called like modules of ours.
    if sys.stdout is not None:
        sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "task", "worker", target, *options])  # noqa: S606
