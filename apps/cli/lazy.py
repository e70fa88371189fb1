"""A group of commands that are imported only when they are run or asked for help."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

__all__ = ["Entry", "LazyGroup"]

#: Longest line of help taken from a command.
_HELP_WIDTH = 80


class Entry(NamedTuple):
    """Where a command is, as ``module:attribute``, and the line of help that the group shows for it.

    Without one the command is imported for its own.
    """

    target: str
    help: str = ""


class LazyGroup(click.Group):
    """A click group over a mapping of name to :class:`Entry`."""

    def __init__(self, *, entries: Mapping[str, Entry], kind: str = "command", **attributes: Any) -> None:
        super().__init__(
            invoke_without_command=True,
            callback=_show_help,
            subcommand_metavar=f"{kind.upper()} [ARGS]...",
            **attributes,
        )
        self._entries = entries
        self._kind = kind

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._entries:
            return None
        module, _, name = self._entries[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._entries and not args[0].startswith("-"):
            from bus.url import nearest

            ctx.fail(f"no {self._kind} is called {args[0]!r}{nearest(args[0], list(self._entries))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(f"{self._kind.capitalize()}s"):
            formatter.write_dl([(name, self._help(ctx, name)) for name in self._entries])

    def _help(self, ctx: click.Context, name: str) -> str:
        command = None if self._entries[name].help else self.get_command(ctx, name)
        return self._entries[name].help if command is None else command.get_short_help_str(_HELP_WIDTH)


@click.pass_context
def _show_help(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)
