"""``taskbus redrive``: send dead letters back to the topic they came from."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

from apps.cli.errors import run_async, say
from apps.cli.options import bus_option, key_value
from apps.cli.output import as_line, print_lines
from apps.redrive.choice import Choice
from apps.redrive.pace import Pace, parse_rate
from apps.redrive.walk import Sent, Walk, Walked
from bus import check_group, check_topic, connect, parse_url
from bus.units import parse_duration
from task.times import parse_time

__all__ = ["command"]

#: Kinds of letters, and reasons why some stay, that are told one by one.
_TOLD = 20


def _moment(text: str) -> datetime:
    """A moment, or how long ago it was; to be given as the ``type`` of an option."""
    with contextlib.suppress(ValueError):
        return parse_time(text)
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a time like 2026-01-31T08:00:00Z nor how long ago it was, like 2h"
        ) from None


def _rate(text: str) -> float:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("topic")
@bus_option()
@click.option("--execute", is_flag=True, help="Send them; without it, only print what would be sent.")
@click.option("--to", metavar="NAME", help="Topic to send to; by default the one each came from.")
@click.option("--to-bus", metavar="URL", help="Bus to send to; by default the one they are on.")
@click.option("--group", default="redrive", show_default=True, metavar="NAME", help="Group to take the letters as.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Send at most N.")
@click.option("--rate", type=_rate, metavar="N/s", help="Send no faster: 100/s, 30/m, 500/h.")
@click.option("--code", "codes", multiple=True, metavar="TEXT", help="Only letters with this code, such as crashed.")
@click.option("--reason", "reasons", multiple=True, metavar="TEXT", help="… with this reason: '*disk full*'.")
@click.option("--type", "types", multiple=True, metavar="TEXT", help="… of tasks of this type.")
@click.option("--job", "jobs", multiple=True, metavar="TEXT", help="… of this job; '*' is any.")
@click.option("--value", "values", multiple=True, metavar="TEXT", help="… with this value: 's3://lake/2026/*'.")
@click.option("--id", "ids", multiple=True, metavar="TEXT", help="… with this id.")
@click.option("--meta", type=key_value, multiple=True, metavar="KEY=TEXT", help="… with this meta; all given must fit.")
@click.option("--since", type=_moment, metavar="TIME", help="… that died at this time or later; 2h is two hours ago.")
@click.option("--until", type=_moment, metavar="TIME", help="… that died before it.")
def command(
    topic: str,
    bus: str,
    execute: bool,
    to: str | None,
    to_bus: str | None,
    group: str,
    limit: int | None,
    rate: float | None,
    codes: tuple[str, ...],
    reasons: tuple[str, ...],
    types: tuple[str, ...],
    jobs: tuple[str, ...],
    values: tuple[str, ...],
    ids: tuple[str, ...],
    meta: tuple[tuple[str, str], ...],
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Send the dead letters of TOPIC (such as hello-world.dead) back to the topics they came from.

    Without --execute it only prints the tasks that would be sent, and every letter stays. The texts of filters may have
    *, ? and [...] in them; an option given several times is fulfilled by any. Letters that do not fit stay.

    A letter is acknowledged once the bus has confirmed its task; a crash between the two leaves it in both places. The
    task keeps its id, and counts in its meta "redriven" how often it was sent back.
    """
    choice = Choice(
        codes=codes,
        reasons=reasons,
        types=types,
        jobs=jobs,
        values=values,
        ids=ids,
        meta=meta,
        since=since,
        until=until,
    )
    source_url = parse_url(bus)
    target_url = source_url if to_bus is None else parse_url(to_bus)
    check_topic(topic)
    check_group(group)
    if to is not None and check_topic(to) == topic and target_url == source_url:
        raise click.UsageError("this would send everything back to where it is: give another --to")

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            source = await stack.enter_async_context(connect(source_url))
            target = source
            producer = None
            if execute:
                if target_url != source_url:
                    target = await stack.enter_async_context(connect(target_url))
                producer = await stack.enter_async_context(await target.producer())
            consumer = await stack.enter_async_context(await source.consumer(topic, group))
            walk = Walk(
                source,
                consumer,
                producer,
                choice,
                to=to,
                elsewhere=target_url != source_url,
                limit=limit,
                pace=Pace(rate),
                atomic=target is source and source.capabilities.atomic_finish,
                tell=_print,
            )
            try:
                await walk.run()
            finally:
                _report(walk.walked, execute)
            if not walk.walked.seen and not source.capabilities.replay:
                say(f"a group that is new on {source_url} sees only letters that come from now on: see --group")

    run_async(work())


def _print(sent: Sequence[Sent]) -> None:
    print_lines(as_line(one.message.body) for one in sent)


def _report(walked: Walked, execute: bool) -> None:
    verb = "sent" if execute else "would send"
    kinds = sorted(walked.sent.items())
    for (topic, code), count in kinds[:_TOLD]:
        say(f"{verb} {count} to {topic}{f' (code {code})' if code else ''}")
    if len(kinds) > _TOLD:
        say(f"… and {sum(count for _, count in kinds[_TOLD:])} of other kinds")
    for reason, count in walked.stay.most_common(_TOLD):
        say(f"{count} stay: {reason}")
    if walked.lost:
        say(f"{walked.lost} letters were received by somebody else meanwhile")
    if walked.cut:
        say(f"it ended before the end of the topic: {walked.cut}")
    hint = "" if execute or not walked.sent else "; --execute sends them"
    say(f"{verb} {walked.sent.total()} of {walked.seen} dead letters{hint}")
