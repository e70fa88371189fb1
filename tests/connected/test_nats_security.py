"""Who may use a NATS server, and what is encrypted: every way to log in, on real servers."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nkeys
import pytest

import bus
from bus import BusURLError, Message, UnauthorisedError
from tests.servers.nats import NatsServer, nats_server

#: Stands in every secret, and must stand nowhere else.
_CANARY = "canary7"


def _config(folder: Path, text: str) -> list[str]:
    path = folder / "server.conf"
    path.write_text(text)
    return ["-c", str(path)]


async def _use(url: str) -> None:
    """Publish, receive, acknowledge and look."""
    async with bus.connect(url) as b, await b.producer() as producer, await b.consumer("t", "g") as consumer:
        assert _CANARY not in str(b.url) + repr(b.url) + repr(vars(b)) + repr(await b.health())
        await producer.publish_many([Message("t", b"%d" % number) for number in range(100)])
        got = 0
        while got < 100:
            batch = await consumer.receive(100, timeout=10)
            assert batch
            await consumer.ack(batch)
            got += len(batch)
        assert (await b.depth("t", "g")).total == 0


def _refused(url: str, kind: type[bus.BusError], match: str) -> None:
    """Opening fails at once with this error, which tells no secret."""
    began = time.monotonic()
    with pytest.raises(kind, match=match) as caught:
        asyncio.run(_use(url))
    assert time.monotonic() - began < 4
    assert _CANARY not in str(caught.value)


def _seed(kind: int) -> tuple[bytes, Any]:
    seed = nkeys.encode_seed(os.urandom(32), kind)
    return seed, nkeys.from_seed(bytearray(seed))


def test_user_and_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A user with the right password is let in, also from a file; all others are an UnauthorisedError at once."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "password").write_text(f"{_CANARY}\n")
    with nats_server(tmp_path, *_config(tmp_path, f"authorization {{ user: me, password: {_CANARY} }}")) as server:
        at = f"127.0.0.1:{server.port}"
        asyncio.run(_use(f"nats://me:{_CANARY}@{at}"))
        asyncio.run(_use(f"nats://me@{at}?password_file={tmp_path}/password"))
        _refused(f"nats://me:{_CANARY}x@{at}", UnauthorisedError, "Authorization Violation; check the user")
        _refused(f"nats://{at}", UnauthorisedError, "Authorization Violation")
    assert _CANARY not in caplog.text


def test_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A token is taken from an option or a file, and shown nowhere."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token").write_text(_CANARY)
    with nats_server(tmp_path, *_config(tmp_path, f"authorization {{ token: {_CANARY} }}")) as server:
        asyncio.run(_use(f"{server.url}?token={_CANARY}"))
        asyncio.run(_use(f"{server.url}?token_file={tmp_path}/token"))
        _refused(f"{server.url}?token={_CANARY}x", UnauthorisedError, "Authorization Violation")
    assert _CANARY not in caplog.text


def test_nkey(tmp_path: Path) -> None:
    """A seed signs the server's nonce; another seed is refused."""
    seed, pair = _seed(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "seed").write_bytes(seed)
    (tmp_path / "other").write_bytes(_seed(nkeys.PREFIX_BYTE_USER)[0])
    config = f"authorization {{ users: [ {{ nkey: {pair.public_key.decode()} }} ] }}"
    with nats_server(tmp_path, *_config(tmp_path, config)) as server:
        asyncio.run(_use(f"{server.url}?nkey_file={tmp_path}/seed"))
        _refused(f"{server.url}?nkey_file={tmp_path}/other", UnauthorisedError, "Authorization Violation")


def test_creds(tmp_path: Path) -> None:
    """A creds file logs in where the server trusts an operator; a user of an unknown account is refused."""
    _, operator = _seed(nkeys.PREFIX_BYTE_OPERATOR)
    _, account = _seed(nkeys.PREFIX_BYTE_ACCOUNT)
    _, stranger = _seed(nkeys.PREFIX_BYTE_ACCOUNT)
    _, system = _seed(nkeys.PREFIX_BYTE_ACCOUNT)
    names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    stored = ("mem_storage", "disk_storage", "streams", "consumer")
    plain = dict.fromkeys(names, -1) | {"wildcards": True}
    accounts = {
        each.public_key.decode(): _jwt(operator, each, {"type": "account", "limits": limits})
        for each, limits in ((account, plain | dict.fromkeys(stored, -1)), (system, plain))
    }
    for name, issuer in (("user", account), ("stranger", stranger)):
        seed, pair = _seed(nkeys.PREFIX_BYTE_USER)
        jwt = _jwt(issuer, pair, {"type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}})
        (tmp_path / f"{name}.creds").write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
        )
    config = (
        f"operator: {_jwt(operator, operator, {'type': 'operator'})}\nresolver: MEMORY\n"
        f"system_account: {system.public_key.decode()}\n"
        f"resolver_preload: {{ {', '.join(f'{key}: {jwt}' for key, jwt in accounts.items())} }}\n"
    )
    with nats_server(tmp_path, *_config(tmp_path, config)) as server:
        asyncio.run(_use(f"{server.url}?creds_file={tmp_path}/user.creds"))
        _refused(f"{server.url}?creds_file={tmp_path}/stranger.creds", UnauthorisedError, "Authorization Violation")


def _jwt(issuer: Any, subject: Any, claims: dict[str, Any]) -> str:
    """A token as ``nsc`` makes it: https://docs.nats.io/running-a-nats-service/nats_admin/security/jwt."""
    body = {
        "jti": base64.b32encode(os.urandom(32)).decode().rstrip("="),
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": "test",
        "nats": claims | {"version": 2},
    }
    text = ".".join(map(_encoded, ({"typ": "JWT", "alg": "ed25519-nkey"}, body)))
    return f"{text}.{base64.urlsafe_b64encode(issuer.sign(text.encode())).decode().rstrip('=')}"


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def test_credentials_changed_while_connected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the server no longer takes the password health says so, and all goes on when it does again."""
    caplog.set_level(logging.DEBUG)
    right = _config(tmp_path, f"authorization {{ user: me, password: {_CANARY} }}")

    async def becomes(b: bus.Bus, ok: Callable[[bus.Health], bool]) -> None:
        async with asyncio.timeout(15):
            while not ok(await b.health()):  # noqa: ASYNC110 - nobody could wake us
                await asyncio.sleep(0.02)

    async def run(server: NatsServer) -> None:
        url = f"nats://me:{_CANARY}@127.0.0.1:{server.port}"
        async with bus.connect(url) as b, await b.producer() as producer, await b.consumer("t", "g") as consumer:
            waiting = asyncio.create_task(consumer.receive())
            _config(tmp_path, "authorization { user: me, password: another }")
            server.reload()
            await becomes(b, lambda health: not health.ok and "Authorization Violation" in health.detail)
            with pytest.raises(bus.UnreachableError, match="Authorization Violation"):
                await producer.publish("t", b"1")
            _config(tmp_path, f"authorization {{ user: me, password: {_CANARY} }}")
            server.reload()
            await becomes(b, lambda health: health.ok)
            await producer.publish("t", b"2")
            async with asyncio.timeout(10):
                assert [delivery.body for delivery in await waiting] == [b"2"]

    with nats_server(tmp_path, *right) as server:
        asyncio.run(run(server))
    assert _CANARY not in caplog.text


def test_a_user_without_a_permission(tmp_path: Path) -> None:
    """What this user may not publish is an UnauthorisedError that names the subject, and at once."""
    config = "authorization { users: [ { user: me, password: pw, permissions: { publish: { deny: 'taskbus.t' } } } ] }"

    async def run(server: NatsServer) -> None:
        url = f"nats://me:pw@127.0.0.1:{server.port}"
        async with bus.connect(url) as b, await b.producer() as producer:
            began = time.monotonic()
            with pytest.raises(UnauthorisedError, match=r"Permissions Violation for Publish to .taskbus\.t."):
                await producer.publish("t", b"1")
            assert time.monotonic() - began < 4
            await producer.publish("another", b"1")

    with nats_server(tmp_path, *_config(tmp_path, config)) as server:
        asyncio.run(run(server))


def test_the_permissions_that_suffice(tmp_path: Path) -> None:
    """A user who may do what the page of the bus lists can do everything, with an inbox of its own too."""
    config = (
        "authorization { users: [ { user: me, password: pw, permissions: {\n"
        "publish: { allow: ['$JS.API.>', '$JS.ACK.>', 'taskbus.>'] }\n"
        "subscribe: { allow: ['_INBOX.>', 'mine.>'] } } } ] }"
    )
    with nats_server(tmp_path, *_config(tmp_path, config)) as server:
        url = f"nats://me:pw@127.0.0.1:{server.port}"
        asyncio.run(_use(url))
        asyncio.run(_use(f"{url}?inbox=mine"))
        _refused(f"{url}?inbox=theirs&timeout=1s", UnauthorisedError, "Permissions Violation for Subscription")


def _certificates(folder: Path) -> None:
    """An authority, and certificates of it for the server and for us."""

    def openssl(arguments: str) -> None:
        made = subprocess.run(["openssl", *arguments.split()], capture_output=True, cwd=folder)
        if made.returncode:
            pytest.skip(f"openssl makes no certificate: {made.stderr.decode()[-200:]}")

    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
        openssl(f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out {name}.pem")


@pytest.mark.parametrize("first", [False, True])
def test_tls(tmp_path: Path, first: bool) -> None:
    """With the authority's certificate all is encrypted; without it, or without TLS, it fails and no secret left."""
    _certificates(tmp_path)
    config = (
        f"authorization {{ user: me, password: {_CANARY} }}\n"
        f"tls {{ cert_file: {tmp_path}/server.pem, key_file: {tmp_path}/server.key"
        f"{', handshake_first: true' if first else ''} }}"
    )
    with nats_server(tmp_path, *_config(tmp_path, config)) as server:
        url = f"nats://me:{_CANARY}@127.0.0.1:{server.port}"
        asyncio.run(_use(f"{url}?ca={tmp_path}/ca.pem{'&tls_first=true' if first else ''}"))
        _refused(f"{url}?tls=true{'&tls_first=true' if first else ''}", UnauthorisedError, "check ca")
        if not first:
            _refused(url, BusURLError, "requires TLS: add tls=true")


def test_tls_is_not_there(tmp_path: Path) -> None:
    """A server without TLS is not sent what was to be encrypted."""
    with nats_server(tmp_path) as server:
        _refused(f"nats://me:{_CANARY}@127.0.0.1:{server.port}?tls=true", BusURLError, "does not offer TLS")


def test_mutual_tls(tmp_path: Path) -> None:
    """A server that wants a certificate takes ours, and refuses us without one."""
    _certificates(tmp_path)
    config = (
        f"tls {{ cert_file: {tmp_path}/server.pem, key_file: {tmp_path}/server.key, "
        f"ca_file: {tmp_path}/ca.pem, verify: true }}"
    )
    with nats_server(tmp_path, *_config(tmp_path, config)) as server:
        ours = f"&cert={tmp_path}/client.pem&key={tmp_path}/client.key"
        asyncio.run(_use(f"{server.url}?ca={tmp_path}/ca.pem{ours}"))
        _refused(f"{server.url}?ca={tmp_path}/ca.pem", UnauthorisedError, "check tls, ca, cert and key")
