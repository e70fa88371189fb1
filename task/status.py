"""The status port: statistics, health and metrics over HTTP, read-only, answered without touching the worker."""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Protocol

import orjson

from task.errors import SettingsError

__all__ = ["Metric", "StatusSource", "serve_status"]

_log = logging.getLogger("taskbus.status")
#: Seconds a client has to send its request.
_TIMEOUT = 5.0
#: Requests answered at the same time; more wait.
_MOST = 16


class Metric(NamedTuple):
    """One sample for Prometheus. ``kind`` is ``counter`` or ``gauge``."""

    name: str
    kind: str
    help: str
    value: float
    labels: Mapping[str, str]


class StatusSource(Protocol):
    """What the status port asks. Called from its own threads."""

    def statistics(self) -> dict[str, object]:
        """Everything worth telling, as JSON values."""
        ...

    def healthy(self) -> tuple[bool, str]:
        """False if the process should be restarted, and why."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether it does its work right now, and why not."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """Samples; those of one name follow each other."""
        ...


@contextmanager
def serve_status(source: StatusSource, host: str, port: int) -> Iterator[int]:
    """Serve ``source`` until the block ends; yields the port, which 0 leaves to the system.

    Raises:
        SettingsError: if the address cannot be used.
    """
    handler = type("Handler", (_Handler,), {"source": source, "names": _names(host)})
    try:
        server = _Server((host, port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"--status-port: cannot listen on {host}:{port}: {reason}") from None
    port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, name="status", daemon=True)
    thread.start()
    _log.info("status page", extra={"event": "status-port", "url": f"http://{host}:{port}/"})
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *args: Any) -> None:
        self._slots = threading.BoundedSemaphore(_MOST)
        super().__init__(*args)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._slots:
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away or sends rubbish is its own affair."""


class _Handler(BaseHTTPRequestHandler):
    source: StatusSource
    #: Names a request may be addressed to, None for any: a web page must not reach us under a name of its own.
    names: frozenset[str] | None
    timeout = _TIMEOUT
    server_version = "taskbus"
    sys_version = ""

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0].strip("[]").lower()
        if self.names is not None and host not in self.names:
            self._answer(403, "text/plain", b"this address answers only to its own name\n")
            return
        path = self.path.partition("?")[0]
        if path == "/":
            body = orjson.dumps(self.source.statistics(), default=str, option=orjson.OPT_INDENT_2)
            self._answer(200, "application/json", body + b"\n")
        elif path in ("/healthz", "/readyz"):
            good, why = self.source.healthy() if path == "/healthz" else self.source.ready()
            self._answer(200 if good else 503, "text/plain", why.encode("utf-8", "replace") + b"\n")
        elif path == "/metrics":
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", _exposition(self.source))
        else:
            self._answer(404, "text/plain", b"there are /, /healthz, /readyz and /metrics\n")

    do_HEAD = do_GET  # noqa: N815  (the name http.server looks for)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Rubbish gets a plain sentence, not a page that repeats it."""
        self.close_connection = True
        self._answer(code, "text/plain", b"this is not a request this port answers\n")

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("status request", extra={"event": "status-request", "request": format % args})


def _names(host: str) -> frozenset[str] | None:
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return frozenset(("localhost", "127.0.0.1", "::1", host.lower())) if local else None


def _exposition(source: StatusSource) -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    class FromSource(Collector):
        def collect(self) -> Iterator[Any]:
            family: Any = None
            for metric in source.metrics():
                if family is None or family.given != metric.name:
                    if family is not None:
                        yield family
                    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                    family = kind(metric.name, metric.help, labels=list(metric.labels))
                    family.given = metric.name
                family.add_metric(list(metric.labels.values()), metric.value)
            if family is not None:
                yield family

    registry = CollectorRegistry()
    registry.register(FromSource())
    return generate_latest(registry)
