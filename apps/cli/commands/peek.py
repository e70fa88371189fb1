"""``taskbus peek``: pending messages, without receiving them."""

from __future__ import annotations

import click

from apps.cli.errors import run_async
from apps.cli.options import bus_option
from apps.cli.output import as_line, print_lines
from bus import check_group, check_topic, connect

__all__ = ["command"]


@click.command()
@click.argument("topic")
@bus_option()
@click.option("--group", metavar="NAME", help="What is pending for this group; by default what the topic stores.")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="How many.")
def command(topic: str, bus: str, group: str | None, limit: int) -> None:
    """Print the oldest messages of TOPIC, one JSON line each. They stay where they are."""
    run_async(_peek(bus, check_topic(topic), group if group is None else check_group(group), limit))


async def _peek(url: str, topic: str, group: str | None, limit: int) -> None:
    async with connect(url) as bus:
        print_lines(as_line(message.body) for message in await bus.peek(topic, group, limit))
