"""From a URL's scheme to the adapter that serves it. Adapters are imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, cast

from bus.contract import Bus
from bus.errors import BusURLError, MissingExtraError
from bus.steady import SteadyClock
from bus.url import INJECT, BusURL, nearest, parse_url

__all__ = ["Adapter", "Clock", "adapters", "connect", "load"]

#: Seconds since the epoch. Leases and delays are computed with it, so that tests can move time.
Clock = Callable[[], float]

#: Entry-point group in which a third party registers ``scheme = "module:BusClass"``.
ENTRY_POINTS = "taskbus.bus"


class Adapter(NamedTuple):
    """Where an adapter lives. ``extra`` is the extra of taskbus that installs its client library."""

    scheme: str
    module: str
    name: str
    extra: str | None = None


_BUILT_IN = {
    adapter.scheme: adapter
    for adapter in (
        Adapter("file", "bus.file", "FileBus"),
        Adapter("kafka", "bus.kafka", "KafkaBus", "kafka"),
        Adapter("lines", "bus.lines", "LinesBus"),
        Adapter("memory", "bus.memory", "MemoryBus"),
        Adapter("nats", "bus.nats", "NatsBus", "nats"),
        Adapter("nsq", "bus.nsq", "NsqBus", "nsq"),
        Adapter("null", "bus.null", "NullBus"),
        Adapter("pubsub", "bus.pubsub", "PubsubBus", "pubsub"),
        Adapter("sqlite", "bus.sql", "SqliteBus"),
        Adapter("stdio", "bus.lines", "LinesBus"),
    )
}


def adapters() -> dict[str, Adapter]:
    """Every known adapter by scheme: the built-in ones, then those of installed third parties."""
    from importlib.metadata import entry_points  # costs 20 ms, which every start would pay

    known = dict(_BUILT_IN)
    for point in entry_points(group=ENTRY_POINTS):
        module, _, name = point.value.partition(":")
        known.setdefault(point.name, Adapter(point.name, module, name))
    return known


def load(adapter: Adapter) -> type[Bus]:
    """Import an adapter's class.

    Raises:
        MissingExtraError: if its client library is not installed.
        BusURLError: if a third party's entry point does not lead to a Bus.
    """
    try:
        found = getattr(importlib.import_module(adapter.module), adapter.name, None)
    except ImportError as error:
        if adapter.extra is None:
            raise BusURLError(f"the adapter for {adapter.scheme}: cannot be imported: {error}") from error
        raise MissingExtraError(
            f"the {adapter.scheme} bus needs {error.name or 'its client library'}: "
            f"pip install 'taskbus[{adapter.extra}]'",
            extra=adapter.extra,
        ) from error
    if not (isinstance(found, type) and issubclass(found, Bus)):
        raise BusURLError(f"{adapter.module}:{adapter.name}, registered for {adapter.scheme}:, is not a bus.Bus")
    return found


#: One for the whole process: what one connection delays is due for another, too.
_steady = cache(SteadyClock)


def connect(url: str | BusURL, *, clock: Clock | None = None) -> Bus:
    """The bus behind ``url``, not yet opened: use ``async with connect(url) as bus``.

    ``inject+`` before the scheme makes it fail now and then: see :mod:`bus.inject`. ``clock`` tells Unix time; by
    default it is one that goes on evenly when the machine's clock is set.

    Raises:
        BusURLError: unknown scheme, unknown or unreadable option, bad path.
        MissingExtraError: naming the extra to install.
    """
    parsed = parse_url(url) if isinstance(url, str) else url
    if parsed.scheme.startswith(INJECT):
        from bus.inject.url import split

        inner, injector = split(parsed)
        from bus.inject.bus import InjectedBus

        return InjectedBus(connect(inner, clock=clock), injector)
    adapter = _BUILT_IN.get(parsed.scheme) or adapters().get(parsed.scheme)
    if adapter is None:
        raise BusURLError(f"no bus has the scheme {parsed.scheme!r}{nearest(parsed.scheme, list(adapters()))}")
    make = cast("Callable[..., Bus]", load(adapter))
    return make(parsed, clock=clock or _steady())
