"""``taskbus topics``: the topics of a bus."""

from __future__ import annotations

import click

from apps.cli.errors import run_async
from apps.cli.options import bus_option
from apps.cli.output import print_lines
from bus import connect

__all__ = ["command"]


@click.command()
@bus_option()
def command(bus: str) -> None:
    """Print the names of the topics, one per line."""
    run_async(_topics(bus))


async def _topics(url: str) -> None:
    async with connect(url) as bus:
        print_lines(name.encode() for name in await bus.topics())
