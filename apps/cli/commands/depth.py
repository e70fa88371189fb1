"""``taskbus depth``: how much is pending in a topic."""

from __future__ import annotations

import click
import orjson

from apps.cli.errors import run_async, say
from apps.cli.options import bus_option
from apps.cli.output import print_lines
from bus import check_group, check_topic, connect

__all__ = ["command"]


@click.command()
@click.argument("topic")
@bus_option()
@click.option("--group", metavar="NAME", help="Group to tell it for; by default every group of the topic.")
def command(topic: str, bus: str, group: str | None) -> None:
    """Print what is pending in TOPIC, one JSON line for each group.

    ``ready`` can be received now, ``delayed`` later, and ``in_flight`` was received but is not settled.
    """
    run_async(_depth(bus, check_topic(topic), group if group is None else check_group(group)))


async def _depth(url: str, topic: str, group: str | None) -> None:
    async with connect(url) as bus:
        groups = await bus.groups(topic) if group is None else [group]
        if not groups:
            say(f"{topic} has no group yet; --group NAME tells what a new one would receive")
        for name in groups:
            depth = await bus.depth(topic, name)
            print_lines([orjson.dumps({"topic": topic, "group": name, **depth._asdict(), "total": depth.total})])
