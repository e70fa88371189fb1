"""How one setting is declared: a dataclass field with a default, a line of help and a reader for its text.

A settings class is a frozen dataclass whose fields are made with :func:`setting`. From it come the command-line flag
(``--max-in-progress``), the environment variable (``TASKBUS_MAX_IN_PROGRESS``), the configuration key
(``max_in_progress``) and the commented example file. :mod:`task.settings` does that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from bus.units import parse_duration, parse_size

__all__ = ["choice", "count", "duration", "setting", "size"]


def setting(
    default: Any,
    help: str,
    *,
    read: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    secret: bool = False,
) -> Any:
    """One setting. ``read`` turns its text into the value and raises ValueError with a text that says what is accepted.

    Without ``read`` a ``bool`` default makes an on/off flag, any other default a text. ``secret`` masks it wherever
    settings are shown.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": help, "read": read, "metavar": metavar, "choices": choices, "secret": secret},
    )


def duration(default: float | None, help: str) -> Any:
    """A length of time, in seconds; written ``90``, ``250ms`` or ``1h30m``. Not negative."""
    return setting(default, help, read=_read_duration, metavar="TIME")


def size(default: int, help: str) -> Any:
    """A number of bytes; written ``1048576``, ``64KB`` or ``1MiB``."""
    return setting(default, help, read=parse_size, metavar="SIZE")


def count(default: int | None, help: str, *, least: int = 0) -> Any:
    """A whole number, at least ``least``."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"{text!r} is not a whole number of at least {least}")
        return number

    return setting(default, help, read=read, metavar="N")


def choice(default: str, choices: Sequence[str], help: str) -> Any:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return setting(default, help, read=read, choices=choices)


def _read_duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < 0:
        raise ValueError(f"{text!r} is negative")
    return seconds
