"""AUTH and client certificates on a real nsqd."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import bus
from bus import BusURLError, UnauthorisedError
from tests.servers.nsq import Nsqd
from tests.taskbus_command import start, taskbus

_SECRET = "canary-7f3a"


class _Auth(BaseHTTPRequestHandler):
    """Permits everything on topics that begin with ``open`` to whoever knows the secret."""

    def do_GET(self) -> None:
        secret = parse_qs(urlsplit(self.path).query).get("secret", [""])[0]
        known = secret == _SECRET
        permit = {"topic": "^(open.*|done)$", "channels": [".*"], "permissions": ["subscribe", "publish"]}
        answer = {"ttl": 60, "identity": "tests", "identity_url": "", "authorizations": [permit] if known else []}
        body = json.dumps(answer).encode()
        self.send_response(200 if known else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Nsqd]:
    """An nsqd that asks for a secret."""
    auth = HTTPServer(("127.0.0.1", 0), _Auth)
    thread = threading.Thread(target=auth.serve_forever)
    thread.start()
    server = Nsqd(tmp_path, f"-auth-http-address=127.0.0.1:{auth.server_port}")
    try:
        server.start()
        yield server
    finally:
        server.stop()
        auth.shutdown()
        thread.join()
        auth.server_close()


def _url(server: Nsqd, secret: str) -> str:
    return server.url(auth_secret=secret, plain_auth="true")


def test_a_secret_is_asked_for(guarded: Nsqd) -> None:
    """With the secret messages flow; with a wrong one or none every way in is an UnauthorisedError."""

    async def refused(url: str) -> None:
        with pytest.raises(UnauthorisedError, match="auth_secret") as caught:
            await bus.connect(url).open()
        assert "wrong-secret" not in str(caught.value)
        b = bus.connect(url)
        assert not (await b.health()).ok
        with pytest.raises(UnauthorisedError):
            await b.consumer("open", "g")
        async with await b.producer() as producer:
            with pytest.raises(UnauthorisedError):
                await producer.publish("open", b"{}")
        await b.close()

    async def run() -> None:
        async with (
            bus.connect(_url(guarded, _SECRET)) as b,
            await b.producer() as producer,
            await b.consumer("open", "g") as consumer,
            await b.consumer("open", None) as listener,
        ):
            await producer.publish("open", b"1")
            assert [delivery.body for delivery in await consumer.receive(timeout=10)] == [b"1"]
            assert [delivery.body for delivery in await listener.receive(timeout=10)] == [b"1"]
        await refused(_url(guarded, "wrong-secret"))
        await refused(guarded.url())

    asyncio.run(run())


def test_what_is_not_permitted_is_refused(guarded: Nsqd) -> None:
    """A topic that the auth server does not permit is an UnauthorisedError that names it; others go on."""

    async def run() -> None:
        async with bus.connect(_url(guarded, _SECRET)) as b, await b.producer() as producer:
            for _ in range(3):
                with pytest.raises(UnauthorisedError, match="closed"):
                    await producer.publish("closed", b"{}")
                with pytest.raises(UnauthorisedError, match="closed"):
                    await b.consumer("closed", "g")
                await producer.publish("open", b"{}")

    asyncio.run(run())


def test_no_secret_is_shown(guarded: Nsqd, tmp_path: Path) -> None:
    """Neither logs nor errors nor ``--show-config`` of the commands hold the secret."""
    url = _url(guarded, _SECRET)
    worker = start("worker", "hello-world", "--topic", "open", "--log-level", "debug", "--bus", url, cwd=tmp_path)
    try:
        done = taskbus("send", "hello-world", "w", "--topic", "open", "--wait", "--bus", url, cwd=tmp_path)
        assert done.code == 0, done
    finally:
        worker.terminate()
        out, err = worker.communicate(timeout=30)
    config = taskbus("worker", "hello-world", "--bus", url, "--show-config", cwd=tmp_path)
    wrong = taskbus("send", "t", "v", "--bus", _url(guarded, f"{_SECRET}-wrong"), cwd=tmp_path)
    assert wrong.code != 0
    assert "auth_secret" in wrong.err
    for text in (out.decode(), err.decode(), done.err, config.out, config.err, wrong.out, wrong.err):
        assert _SECRET not in text
    assert "started" in err.decode() or "working" in err.decode()


def _certificate(folder: Path, name: str, issuer: str | None = None) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1, signed by ``issuer`` or by itself."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    command += ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
    if issuer is not None:
        command += ["-CA", str(folder / f"{issuer}.pem"), "-CAkey", str(folder / f"{issuer}.key")]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"openssl makes no certificate: {made.stderr[-200:]}")
    return key, cert


def test_a_client_certificate_is_required(tmp_path: Path) -> None:
    """With ``-tls-client-auth-policy=require-verify`` only certificates of that CA get in, to TCP and HTTPS."""
    _, ca = _certificate(tmp_path, "ca")
    key, cert = _certificate(tmp_path, "server", "ca")
    mine_key, mine = _certificate(tmp_path, "client", "ca")
    other_key, other = _certificate(tmp_path, "stranger")
    server = Nsqd(
        tmp_path,
        f"-tls-cert={cert}",
        f"-tls-key={key}",
        f"-tls-root-ca-file={ca}",
        "-tls-client-auth-policy=require-verify",
        "-tls-required=tcp-https",
    )
    server.start()

    async def run() -> None:
        https = f"https://127.0.0.1:{server.https}"
        tls = {"tls": "true", "tls_ca": str(ca)}
        url = server.url(**tls, tls_cert=str(mine), tls_key=str(mine_key)).replace(
            f"http={server.http}", f"http={https}"
        )
        async with bus.connect(url) as b, await b.producer() as producer, await b.consumer("t", "g") as consumer:
            await producer.publish("t", b"1")
            (delivery,) = await consumer.receive(timeout=10)
            assert (await b.depth("t", "g")).in_flight == 1
            await consumer.ack([delivery])
        for more in ({}, {"tls_cert": str(other), "tls_key": str(other_key)}):
            with pytest.raises(UnauthorisedError, match="tls_cert"):
                await bus.connect(server.url(**tls, **more)).open()
        with pytest.raises(BusURLError, match="tls_ca"):
            await bus.connect(server.url(tls="true", tls_ca=str(other))).open()

    try:
        asyncio.run(run())
    finally:
        server.stop()
