"""``taskbus simulate``: every task that rule files would make together, and when, without making any."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TypeVar

import click

from bus import OutputClosedError
from bus.units import parse_duration
from task.exits import Exit
from taskmasters.batch.moments import parse_moment
from taskmasters.on_done.patterns import Texts
from taskmasters.simulate.made import Made
from taskmasters.simulate.printing import (
    Period,
    as_json,
    as_table,
    counted,
    counts_as_json,
    counts_as_table,
)
from taskmasters.simulate.run import Simulation
from taskmasters.simulate.setup import prepare
from taskmasters.zone import Zone, find_zone

__all__ = ["simulate"]

Read = TypeVar("Read")


@click.command("simulate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rules", nargs=-1, required=True, metavar="RULES...")
@click.option("--from", "start", required=True, metavar="WHEN", help="First moment: 2026-03, 2026-03-29T01, now, -36h.")
@click.option("--to", "end", metavar="WHEN", help="Moment to end before, given likewise.")
@click.option("--for", "length", metavar="TIME", help="Instead of --to: how long, as 30d or 36h.")
@click.option("--timezone", default="UTC", show_default=True, metavar="NAME", help="Zone of WHEN and of the table.")
@click.option("--results", metavar="FILE", help="Rules that say what tasks come to; without it all complete at once.")
@click.option("--topic", "topics", multiple=True, metavar="NAME", help="Tell only of these topics: load, 'load-*'.")
@click.option("--json", "json", is_flag=True, help="One JSON line for each task instead of a table.")
@click.option(
    "--summary",
    type=click.Choice([str(period) for period in Period]),
    help="Only count the tasks of each rule and topic: all of them, or by month, day or hour.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=1_000_000, show_default=True, metavar="N", help="Fail after N tasks."
)
def simulate(
    rules: tuple[str, ...],
    start: str,
    end: str | None,
    length: str | None,
    timezone: str,
    results: str | None,
    topics: tuple[str, ...],
    json: bool,
    summary: str | None,
    limit: int,
) -> Exit:
    """Print every task that the rule files RULES would make together, and when.

    RULES are files of cron, on-done, retry and workflow, or folders of them. What each is for is found out, or told as
    cron=FILE, on-done=FILE, retry=FILE, workflow=FILE. Tasks for the delay taskmaster wait as they would there. Nothing
    is sent, and nothing written.
    """
    zone = _read("--timezone", find_zone, timezone)
    first, last = _span(start, end, length, zone, time.time())
    players, comes = prepare(rules, results, first)
    simulation = Simulation(players, comes, limit=limit)
    try:
        told = _Told(simulation.run(last), topics)
        if summary is not None:
            counts = counted(told, Period(summary), zone)
            lines = counts_as_json(counts) if json else _encoded(counts_as_table(counts))
        else:
            lines = as_json(told) if json else _encoded(as_table(told, zone))
        _write(lines)
        for note in simulation.notes(last):
            _say(note)
    finally:
        simulation.close()
    _say(f"{told.count:,} tasks from {_shown(first, zone)} until {_shown(last, zone)}; none of them was sent")
    return Exit.OK


class _Told:
    """What was made for certain topics; all if there are none."""

    def __init__(self, found: Iterable[Made], topics: tuple[str, ...]) -> None:
        self._found = found
        self._topics = Texts(topics) if topics else None
        self.count = 0

    def __iter__(self) -> Iterator[Made]:
        for made in self._found:
            if self._topics is None or self._topics.match(made.topic):
                self.count += 1
                yield made


def _span(start: str, end: str | None, length: str | None, zone: Zone, now: float) -> tuple[int, int]:
    first = _read("--from", lambda text: parse_moment(text, zone, now), start)
    if (end is None) == (length is None):
        raise click.UsageError("until when? Give --to or --for" if end is None else "give --to or --for, not both")
    if end is not None:
        last = _read("--to", lambda text: parse_moment(text, zone, now), end)
    else:
        last = first + int(_read("--for", parse_duration, length or ""))
    if last <= first:
        raise click.UsageError("--to must be later than --from" if end is not None else "--for must be longer than 0s")
    return first, last


def _read(option: str, read: Callable[[str], Read], text: str) -> Read:
    try:
        return read(text)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{option}: {error}") from None


def _encoded(lines: Iterable[str]) -> Iterator[bytes]:
    return (line.encode("utf-8", "replace") for line in lines)


def _write(lines: Iterable[bytes]) -> None:
    if sys.stdout is None:
        raise OutputClosedError("standard output is closed")
    try:
        for line in lines:
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise OutputClosedError("nobody reads the output any more") from None


def _shown(moment: int, zone: Zone) -> str:
    return datetime.fromtimestamp(moment, zone.info).isoformat()


def _say(text: str) -> None:
    click.echo(f"taskbus: {text}", err=True)
