"""``taskbus pipe``: move or copy tasks from one topic and bus to another."""

from __future__ import annotations

import contextlib

import click

from apps.cli.errors import run_async, say
from apps.cli.options import bus_option
from bus import Bus, Consumer, LeaseLostError, Message, Producer, check_group, check_topic, connect, parse_url

__all__ = ["command"]

_BATCH = 256
#: Seconds without a message after which --drain asks whether the topic is empty.
_QUIET = 0.5


@click.command()
@bus_option("--from", "Bus to take from.")
@click.option("--topic", required=True, metavar="NAME", help="Topic to take from.")
@bus_option("--to", "Bus to send to.")
@click.option("--to-topic", metavar="NAME", help="Topic to send to; by default the same name.")
@click.option("--group", metavar="NAME", help="Group to take as; by default TOPIC, with --copy pipe.")
@click.option("--copy", is_flag=True, help="Leave what is there to its workers, and send a copy.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("--drain", is_flag=True, help="End when nothing is left to take.")
def command(
    topic: str,
    to: str,
    to_topic: str | None,
    group: str | None,
    copy: bool,
    limit: int | None,
    drain: bool,
    **others: str,
) -> None:
    """Move the messages of a topic to another topic or bus, as they are, until Ctrl-C or the end of the input.

    To move is to receive in the place of the workers, as their group; it has the topic's name unless they were given
    another. Each message is acknowledged once the target has confirmed it; a crash between the two leaves it in both
    places. With --copy a group of its own receives everything the bus has, beside the workers.
    """
    target = check_topic(to_topic or topic)
    source_url, target_url = parse_url(others["from"]), parse_url(to)
    same = source_url == target_url
    if same and target == topic:
        raise click.UsageError("this would send everything back to where it came from: give another --to or --to-topic")
    group = check_group(group or ("pipe" if copy else topic))

    async def work() -> int:
        async with contextlib.AsyncExitStack() as stack:
            source = await stack.enter_async_context(connect(source_url))
            bus = source if same else await stack.enter_async_context(connect(target_url))
            producer = await stack.enter_async_context(await bus.producer())
            consumer = await stack.enter_async_context(await source.consumer(check_topic(topic), group))
            return await _pipe(source, consumer, producer, target, limit, drain)

    done = run_async(work())
    say(f"{'copied' if copy else 'moved'} {done} from {topic} to {target}")


async def _pipe(
    source: Bus, consumer: Consumer, producer: Producer, target: str, limit: int | None, drain: bool
) -> int:
    done = 0
    while limit is None or done < limit:
        size = _BATCH if limit is None else min(_BATCH, limit - done)
        deliveries = await consumer.receive(size, _QUIET if drain else None)
        if not deliveries:
            if consumer.ended or (drain and await _empty(source, consumer)):
                break
            continue
        messages = [Message(target, delivery.body, delivery.key) for delivery in deliveries]
        lost = 0
        try:
            await consumer.finish(deliveries, messages, producer)
        except LeaseLostError as error:
            # Whoever has them now deals with them; if they were sent already there are two of each, but none is lost.
            lost = len(error.deliveries)
            say(str(error))
        done += len(deliveries) - lost
    return done


async def _empty(source: Bus, consumer: Consumer) -> bool:
    if not source.capabilities.depth:
        return True
    return (await source.depth(consumer.topic, consumer.group or "")).total == 0
