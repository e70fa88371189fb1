"""Options that several commands have, and the kinds of values they take."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from bus.units import parse_duration
from task.options import DEFAULT_BUS
from task.times import parse_time

__all__ = ["bus_option", "duration", "key_value", "moment"]


def duration(text: str) -> float:
    """The seconds of an option written ``90``, ``250ms`` or ``1h30m``; to be given as its ``type``."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if seconds < 0:
        raise click.BadParameter(f"{text!r} is negative")
    return seconds


def moment(text: str) -> datetime:
    """The moment of an option written as RFC 3339 has it, in UTC if it has no zone; to be given as its ``type``."""
    try:
        return parse_time(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time; write it like 2026-01-31T08:00:00Z") from None


def key_value(text: str) -> tuple[str, str]:
    """The pair of an option written ``KEY=VALUE``; to be given as its ``type``."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


def bus_option(name: str = "--bus", help: str = "Bus to use.") -> Callable[[Any], Any]:
    """An option for a bus URL, with the default that every command has."""
    return click.option(
        name, envvar="TASKBUS_BUS", show_envvar=True, default=DEFAULT_BUS, show_default=True, metavar="URL", help=help
    )
