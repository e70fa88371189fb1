"""The shell worker as an application."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from task.app import invoke, run_worker
from task.errors import SettingsError
from task.settings import click_options, resolve
from workers.shell.argv import Argv
from workers.shell.options import ShellOptions
from workers.shell.worker import Shell, environment

__all__ = ["main"]


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="PROGRAM [ARGUMENT]...")
@click_options(ShellOptions)
def command(program: tuple[str, ...], config: Path | None, **flags: object) -> int:
    """Run PROGRAM for every task: exit code 0 is complete, any other error, the end of its output the message.

    In an ARGUMENT {value} stands for the task's value, {origin} for that up to its ?, {path} for the path in it,
    {filename} for the last part of the path, {param:NAME} for a parameter, {meta:NAME} for a text of its meta, and
    {type}, {job} and {id} for what they say. Whatever the task holds stays within that argument; there is no shell.
    A literal brace is written twice.
    """
    argv = Argv(program)
    options = resolve(ShellOptions, flags, config=config).settings
    if options.isolation == "process":
        raise SettingsError("--isolation process: every program is a process of its own already; leave it at auto")
    shell = Shell(
        argv=argv,
        env=environment(options.names()),
        codes=options.results(),
        stdin=options.stdin == "task",
        type=options.type_,
    )
    # A missing program would turn every task into an alert; better to start none.
    if shutil.which(argv.program, path=shell.env.get("PATH")) is None:
        raise SettingsError(f"there is no program {argv.program!r} that can be run; check its name and PATH")
    return run_worker(shell, options, kind=options.type_)


def main(args: Sequence[str], prog_name: str) -> int:
    """Run it as an application. Returns the exit code."""
    return invoke(command, args, prog_name)
