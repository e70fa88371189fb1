"""``taskbus tail``: what is published to a topic, as it comes."""

from __future__ import annotations

import click

from apps.cli.errors import run_async
from apps.cli.options import bus_option
from apps.cli.output import as_line, print_lines
from bus import connect

__all__ = ["command"]

_BATCH = 100
#: More than any topic that a person would read from its start.
_EVERYTHING = 1_000_000


@click.command()
@click.argument("topic")
@bus_option()
@click.option("--from-start", is_flag=True, help="First print what the bus still stores of the topic.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
def command(topic: str, bus: str, from_start: bool, limit: int | None) -> None:
    """Print every message published to TOPIC from now on, one JSON line each, until Ctrl-C.

    Nothing is taken from anybody: workers receive the same messages. What is not JSON is printed as {"body": TEXT}, or
    as {"body_base64": TEXT} if it is no text either.
    """
    run_async(_tail(bus, topic, from_start, limit))


async def _tail(url: str, topic: str, from_start: bool, limit: int | None) -> None:
    left = _EVERYTHING if limit is None else limit
    async with connect(url) as bus, await bus.consumer(topic, None) as consumer:
        seen: set[str] = set()
        if from_start:
            stored = await bus.peek(topic, None, left)
            print_lines(as_line(message.body) for message in stored)
            seen = {message.id for message in stored}
            left -= len(stored)
        while limit is None or left > 0:
            deliveries = await consumer.receive(_BATCH if limit is None else min(_BATCH, left))
            if not deliveries and consumer.ended:
                return
            # What was published between subscribing and looking comes both ways.
            fresh = [delivery for delivery in deliveries if delivery.id not in seen]
            print_lines(as_line(delivery.body) for delivery in fresh)
            left -= len(fresh)
            await consumer.ack(deliveries)
