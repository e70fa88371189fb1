"""``taskbus buses``: the kinds of bus and what each can do."""

from __future__ import annotations

import click
import orjson

from apps.cli.output import print_lines
from bus import Adapter, BusURLError, MissingExtraError, adapters, load

__all__ = ["command"]


@click.command()
def command() -> None:
    """Print every kind of bus, one JSON line each: its URL scheme, whether it is installed, and its capabilities.

    Times are in seconds, sizes in bytes. ``durability`` says what a confirmed task survives: D0 not even the end of the
    process, D1 a clean restart of the bus, D2 kill -9, D3 the power loss of one host, D4 that of several at once.
    """
    print_lines(orjson.dumps(_describe(adapter)) for _, adapter in sorted(adapters().items()))


def _describe(adapter: Adapter) -> dict[str, object]:
    try:
        capabilities = load(adapter).capabilities.describe()
    except MissingExtraError as error:
        return {"scheme": adapter.scheme, "installed": False, "install": f"pip install 'taskbus[{error.extra}]'"}
    except BusURLError as error:
        return {"scheme": adapter.scheme, "installed": False, "error": str(error)}
    return {"scheme": adapter.scheme, "installed": True, "capabilities": capabilities}
