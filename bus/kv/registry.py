"""From a URL's scheme to the store it names. Stores are imported only when asked for."""

from __future__ import annotations

from bus.errors import BusURLError
from bus.kv.contract import KeyValue
from bus.url import BusURL, nearest, parse_url

__all__ = ["open_kv"]

_SQL = ("sqlite", "postgresql", "postgres", "mysql", "mariadb")


def open_kv(url: str | BusURL) -> KeyValue:
    """The store behind ``sqlite:FILE``, ``postgresql://…/NAME``, ``mysql://…/NAME`` or ``nats://HOST/BUCKET``, not yet
    opened: use ``async with open_kv(url) as store``.

    Raises:
        BusURLError: unknown scheme, unknown or unreadable option, no name.
        MissingExtraError: naming the extra to install.
    """
    parsed = parse_url(url) if isinstance(url, str) else url
    if parsed.scheme in _SQL:
        from bus.kv.sql import SqlKeyValue

        return SqlKeyValue(parsed)
    if parsed.scheme == "nats":
        from bus.nats.kv import NatsKeyValue

        return NatsKeyValue(parsed)
    raise BusURLError(f"{parsed.scheme} keeps no keys and values{nearest(parsed.scheme, ['nats', *_SQL])}")
