"""What an application tells on its status port, and how to start that.

The server itself is in :mod:`task.status_server`, imported only where a port is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

__all__ = ["Metric", "StatusSource", "serve_status"]

_log = logging.getLogger("taskbus.status")


class Metric(NamedTuple):
    """One sample for Prometheus.

    A counter's name ends in ``_total``. A summary is two of these, whose names end in ``_sum`` and ``_count``.
    """

    name: str
    kind: Literal["counter", "gauge", "summary"]
    help: str
    value: float
    labels: Mapping[str, str]


class StatusSource(Protocol):
    """What the status port asks. Called from threads of its own; it must answer without waiting."""

    def statistics(self) -> dict[str, object]:
        """Everything worth telling, as JSON values. Without secrets."""
        ...

    def healthy(self) -> tuple[bool, str]:
        """False if the process should be started anew, and why."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether it does its work right now, and if not, why."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """The samples of this moment."""
        ...


@contextmanager
def serve_status(source: StatusSource, host: str, port: int) -> Iterator[int]:
    """Serve ``source`` on ``host`` from a thread until the block ends; yields the port, which 0 leaves to the system.

    Raises:
        SettingsError: if the address cannot be listened on.
    """
    from task.status_server import StatusServer

    with StatusServer(source, host, port) as server:
        _log.info("status page", extra={"event": "status-port", "url": server.url})
        yield server.port
