"""Local servers that alerts are sent to: HTTP and SMTP, real ones, in threads of their own."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any, NamedTuple

import orjson

__all__ = ["Hook", "Mailbox", "Posted", "certificate", "hook", "mailbox"]


class Posted(NamedTuple):
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Hook:
    """What came, and what is answered: the first of ``answers``, and the last one for ever."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []
        self.answers = [200]
        self.location = ""
        self.hang = threading.Event()
        self.hanging = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/canary"


@contextmanager
def hook(port: int = 0) -> Iterator[Hook]:
    """An HTTP server."""
    found = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.posted.append(Posted(self.path, dict(self.headers), body))
            if found.hanging:
                found.hang.wait(30)
                return
            self.send_response(found.answers[0] if len(found.answers) == 1 else found.answers.pop(0))
            if found.location:
                self.send_header("Location", found.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the names are the library's

        def log_message(self, format: str, *args: object) -> None:
            """It is quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        found.hang.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Mailbox:
    """The mails that came, and who logged in."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.encrypted: list[bool] = []
        self.refuse = ""
        self.port = 0


@contextmanager
def mailbox(*, tls: Path | None = None, starttls: Path | None = None, login: bool = False) -> Iterator[Mailbox]:
    """An SMTP server. ``tls`` and ``starttls`` name a folder with a certificate."""
    from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

    found = Mailbox()

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            if found.refuse:
                return found.refuse
            found.encrypted.append(tls is not None or session.ssl is not None)
            found.mails.append(message_from_bytes(envelope.content, policy=default))
            return "250 OK"

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        if isinstance(data, LoginPassword):
            found.logins.append((data.login, data.password))
            return AuthResult(success=data.password == b"canary-right", handled=False)
        return AuthResult(success=False, handled=False)

    connections: list[Any] = []

    def protocol() -> Any:
        with warnings.catch_warnings():
            # A password over a connection that is encrypted from the start is taken for one in the clear.
            warnings.simplefilter("ignore")
            connections.append(made := connection())
        return made

    def connection() -> Any:
        return SMTP(
            Handler(),
            hostname="localhost",
            loop=loop,
            tls_context=_context(starttls),
            require_starttls=starttls is not None,
            auth_required=login,
            auth_require_tls=login and starttls is not None,
            authenticator=authenticate if login else None,
        )

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", 0, ssl=_context(tls)))
    found.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(_hang_up(connections))
        loop.close()


async def _hang_up(connections: list[Any]) -> None:
    talking = asyncio.all_tasks() - {asyncio.current_task()}
    for task in talking:
        task.cancel()
    await asyncio.gather(*talking, return_exceptions=True)
    for one in connections:
        if one.transport is not None:
            one.transport.abort()
    await asyncio.sleep(0)


def certificate(folder: Path) -> Path:
    """Make a certificate for localhost in ``folder``; the path of it."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem"


def _context(folder: Path | None) -> SSLContext | None:
    if folder is None:
        return None
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
