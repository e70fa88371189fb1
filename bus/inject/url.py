"""``inject+URL``: the options of the injection, which begin with ``inject-``, and those of the bus within."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bus.errors import BusURLError
from bus.inject.injector import OPERATIONS, Injector
from bus.units import duration_within
from bus.url import INJECT, BusURL, option, parse_options

__all__ = ["split"]


def _rate(text: str) -> float:
    try:
        rate = float(text) if len(text) <= 20 else -1.0
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise ValueError("write a probability from 0 to 1, as 0.05")
    return rate


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError("write a whole number, zero or more")
    return int(text)


def _operations(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in OPERATIONS:
            raise ValueError(f"{name[:40]!r} is no operation; known: {', '.join(OPERATIONS)}")
    return names


@dataclass(frozen=True, slots=True)
class _Options:
    inject_rate: float = option(_rate, 0.05, "probability that an operation fails, 0 to 1")
    inject_seed: int | None = option(_seed, None, "the same seed gives the same faults; default one that is drawn")
    inject_wait: float = option(duration_within(0.0, 3600.0), 0.1, "how long what times out or comes late takes")
    inject_operations: tuple[str, ...] = option(_operations, tuple(OPERATIONS), "operations that may fail, with commas")


def split(url: BusURL) -> tuple[BusURL, Injector]:
    """The URL of the bus within, and what injects faults into it.

    Raises:
        BusURLError: for an option of the injection that is not known or cannot be read.
    """
    inner = url.scheme.removeprefix(INJECT)
    if inner.startswith(INJECT):
        raise BusURLError(f"{url.scheme}: {INJECT} is written once")
    mine = {key: text for key, text in url.options.items() if key.startswith(("inject-", "inject_"))}
    options = parse_options(dataclasses.replace(url, options=mine), _Options)
    theirs = {key: text for key, text in url.options.items() if key not in mine}
    return dataclasses.replace(url, scheme=inner, options=theirs), Injector(
        rate=options.inject_rate,
        seed=options.inject_seed,
        wait=options.inject_wait,
        operations=options.inject_operations,
    )
