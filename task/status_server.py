"""The status port: statistics, health and metrics over HTTP, read-only, in threads of its own.

It stands hostile neighbours: a request is one short head; a connection is dropped when it is too old, or when it is the
oldest of too many, so that a probe always gets its answer; and a web page in somebody's browser cannot reach it under a
host name of its own making (DNS rebinding).
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast

from task.errors import SettingsError
from task.status import StatusSource

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["StatusServer"]

_log = logging.getLogger("taskbus.status")
#: Seconds from accepting a connection to dropping it, answered or not.
_TIME_LIMIT = 5.0
#: Seconds between looks for connections over the limit; also the longest it takes to stop.
_TICK = 0.2
#: Connections at a time.
_CONNECTIONS = 64
#: Bytes of a request: its first line and headers.
_HEAD = 16 * 1024


class StatusServer(socketserver.ThreadingTCPServer):
    """Answers for ``source`` within ``with``.

    Raises:
        SettingsError: if ``host`` and ``port`` cannot be listened on.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, source: StatusSource, host: str, port: int) -> None:
        self.source = source
        #: When each open connection was accepted; the oldest first.
        self._accepted: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        try:
            # Without the port: getaddrinfo would take 70000 for 4464.
            self.address_family, _, _, _, found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
            address: Any = (found[0], port, *found[2:])
            super().__init__(address, _Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error).rstrip(".")
            raise SettingsError(
                f"the status port cannot listen on {host} port {port}: {reason}. --status-host must be an address of "
                "this machine, and --status-port one that nobody uses yet; 0 takes a free one"
            ) from None
        self.port: int = self.server_address[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        local = ipaddress.ip_address(str(self.server_address[0]).partition("%")[0]).is_loopback
        #: Host names by which requests may address this port; None for any.
        self.names = {"localhost", host.lower()} if local else None

    def __enter__(self) -> StatusServer:
        threading.Thread(target=self.serve_forever, args=(_TICK,), name="status", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._drop(most=0)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._accepted[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._accepted.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        self._drop(most=_CONNECTIONS)

    def _drop(self, most: int) -> None:
        """End the connections that are too old, and the oldest of those beyond ``most``. Their threads see an end."""
        overdue = time.monotonic() - _TIME_LIMIT
        with self._lock:
            for request, accepted in list(self._accepted.items()):
                if accepted >= overdue and len(self._accepted) <= most:
                    return
                del self._accepted[request]
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away or stalls is its own affair; what the source raises is caught before."""

    @cached_property
    def registry(self) -> CollectorRegistry:
        """Where Prometheus's client finds the metrics of the source and of the process."""
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.core import Metric
        from prometheus_client.registry import Collector

        source = self.source

        class FromSource(Collector):
            def collect(self) -> Iterator[Metric]:
                families: dict[str, Metric] = {}
                for name, kind, help, value, labels in source.metrics():
                    # A family is what goes by one HELP line; the client puts a counter's _total back.
                    suffixes = {"counter": ("_total",), "summary": ("_sum", "_count")}.get(kind, ())
                    family = next((name.removesuffix(end) for end in suffixes if name.endswith(end)), name)
                    found = families.setdefault(family, Metric(family, help, kind))
                    found.add_sample(name, dict(labels), value)
                yield from families.values()

        registry = CollectorRegistry()
        registry.register(FromSource())
        ProcessCollector(registry=registry)
        return registry


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIME_LIMIT
    default_request_version = "HTTP/1.0"
    request_version = "HTTP/1.0"
    requestline = command = ""
    too_long = False

    @property
    def status(self) -> StatusServer:
        """The server this handler is made by."""
        return cast(StatusServer, self.server)

    def setup(self) -> None:
        """Take in the head of the request, so that no more of it can follow."""
        super().setup()
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) <= _HEAD:
            block = self.connection.recv(_HEAD)
            if not block:
                break
            head += block
        self.too_long = len(head) > _HEAD
        self.rfile = io.BufferedReader(io.BytesIO(head))

    def handle(self) -> None:
        """One request for each connection."""
        if self.too_long:
            self.send_error(431)
        else:
            self.handle_one_request()

    def do_GET(self) -> None:
        if not self._is_addressed():
            self._answer(403, "text/plain", "requests to this port must name its own host\n")
            return
        try:
            answer = self._page(self.path.partition("?")[0])
        except Exception:  # whatever the source raises, the client gets a sentence and the log the rest
            _log.warning("a status request failed", exc_info=True, extra={"event": "status-failed", "path": self.path})
            answer = 500, "text/plain", "this cannot be told right now; the log says why\n"
        self._answer(*answer)

    do_HEAD = do_GET  # noqa: N815 - the name http.server looks for

    def _page(self, path: str) -> tuple[int, str, str]:
        source = self.status.source
        if path == "/":
            return 200, "application/json", json.dumps(source.statistics(), indent=2, default=str) + "\n"
        if path in ("/healthz", "/readyz"):
            good, why = source.healthy() if path == "/healthz" else source.ready()
            return 200 if good else 503, "text/plain", why + "\n"
        if path == "/metrics":
            from prometheus_client import generate_latest

            return 200, "text/plain; version=0.0.4", generate_latest(self.status.registry).decode()
        return 404, "text/plain", "there are /, /healthz, /readyz and /metrics\n"

    def _is_addressed(self) -> bool:
        """Whether the request names this host. An address cannot be rebound, and browsers always send a name."""
        given: str | None = self.headers["Host"]
        if given is None or self.status.names is None:
            return True
        host = given[1:].partition("]")[0] if given.startswith("[") else given.partition(":")[0]
        if host.lower() in self.status.names:
            return True
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(host))
        return False

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Rubbish gets a plain sentence, not a page that repeats it."""
        status = 405 if code == 501 else code
        self._answer(status, "text/plain", "this port answers short GET and HEAD requests only\n")
        # Closing with something unread would reset the connection and take the answer away from the client.
        self.connection.shutdown(socket.SHUT_WR)
        while self.connection.recv(_HEAD):
            pass

    def version_string(self) -> str:
        return "taskbus"

    def log_message(self, format: str, *args: Any) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            extra = {"event": "status-request", "client": self.client_address[0], "request": format % args}
            _log.debug("status request", extra=extra)
