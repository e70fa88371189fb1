"""The Kafka bus and its servers: who may log in, what is refused, and how that is told."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")

from bus import (
    BadNameError,
    Bus,
    BusURLError,
    Message,
    NoSuchTopicError,
    TooLargeError,
    UnauthorisedError,
    UnreachableError,
    connect,
)
from bus.kafka.names import retry_topic
from tests.servers.kafka import KafkaServer

_SECRET = "canary-31c9"
_MODULES = "org.apache.kafka.common.security"


class _Secured:
    """A broker with a listener for passwords, one for tokens, one with TLS and one that wants a certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _certificates(folder)
        self.server = KafkaServer(
            folder,
            listeners={"LOGIN": "SASL_PLAINTEXT", "TOKEN": "SASL_PLAINTEXT", "TLS": "SSL", "MUTUAL": "SSL"},
            properties={
                "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                "listener.name.login.plain.sasl.jaas.config": (
                    f'{_MODULES}.plain.PlainLoginModule required user_alice="{_SECRET}";'
                ),
                **{
                    f"listener.name.login.scram-sha-{bits}.sasl.jaas.config": (
                        f"{_MODULES}.scram.ScramLoginModule required;"
                    )
                    for bits in (256, 512)
                },
                "listener.name.token.sasl.enabled.mechanisms": "OAUTHBEARER",
                "listener.name.token.oauthbearer.sasl.jaas.config": (
                    f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required;"
                ),
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(folder / "server.pem"),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(folder / "ca.crt"),
                "listener.name.mutual.ssl.client.auth": "required",
            },
            scram=[f"SCRAM-SHA-{bits}=[name=bob,password={_SECRET}]" for bits in (256, 512)],
        )

    def url(self, listener: str, login: str = "", **options: object) -> str:
        query = "&".join(f"{key}={value}" for key, value in {"partitions": 1, "timeout": "3s", **options}.items())
        return f"kafka://{login}127.0.0.1:{self.server.ports[listener]}?{query}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Secured]:
    """One broker for all tests."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates can be made")
    secured = _Secured(tmp_path_factory.mktemp("secured"))
    secured.server.start()
    yield secured
    secured.server.stop()


def _certificates(folder: Path) -> None:
    """An authority, a server of this machine, a client, and a client of another authority."""

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True, timeout=60)

    (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("ca", "strange"):
        make = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        openssl("req", *make, "-keyout", f"{name}.key", "-out", f"{name}.crt")
    for name in ("server", "client"):
        make = ["-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        openssl("req", *make, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *sign)
    openssl("pkcs8", "-topk8", "-in", "client.key", "-out", "locked.key", "-passout", f"pass:{_SECRET}")
    (folder / "passphrase").write_text(_SECRET)
    (folder / "server.pem").write_text((folder / "server.key").read_text() + (folder / "server.crt").read_text())


async def _works(url: str, topic: str) -> None:
    """Publish, receive and acknowledge."""
    async with connect(url) as bus:
        async with await bus.producer() as producer:
            await producer.publish(topic, b"{}")
        async with await bus.consumer(topic, "g") as consumer:
            got = await consumer.receive(1, timeout=20.0)
            assert [each.body for each in got] == [b"{}"]
            await consumer.ack(got)
        assert (await bus.health()).ok


async def _open(url: str) -> None:
    async with connect(url):
        pass


@pytest.mark.parametrize(("user", "sasl"), [("alice", "plain"), ("bob", "scram-sha-256"), ("bob", "scram-sha-512")])
def test_log_in_with_a_password(secured: _Secured, user: str, sasl: str) -> None:
    """PLAIN and both SCRAMs work; a wrong password is an UnauthorisedError at once, without the password."""
    asyncio.run(_works(secured.url("LOGIN", f"{user}:{_SECRET}@", sasl=sasl), f"login-{sasl}"))
    began = time.monotonic()
    with pytest.raises(UnauthorisedError) as caught:
        asyncio.run(_open(secured.url("LOGIN", f"{user}:{_SECRET}-wrong@", sasl=sasl, timeout="30s")))
    assert time.monotonic() - began < 15
    assert _SECRET not in str(caught.value)


def test_log_in_with_a_token(secured: _Secured, tmp_path: Path) -> None:
    """OAUTHBEARER with a token from a file works; one that is over is an UnauthorisedError."""

    def token(ends: float) -> str:
        parts = ({"alg": "none"}, {"sub": "alice", "iat": int(time.time()) - 60, "exp": int(ends)})
        head, claims = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        return f"{head}.{claims}."

    file = tmp_path / "token"
    file.write_text(token(time.time() + 3600))
    asyncio.run(_works(secured.url("TOKEN", token_file=file), "token"))
    file.write_text(token(time.time() + 3600).replace("e", "f"))
    with pytest.raises(UnauthorisedError):
        asyncio.run(_open(secured.url("TOKEN", token_file=file)))


def test_tls_and_certificates(secured: _Secured) -> None:
    """TLS with the authority given, and mTLS with a certificate, also one whose key is locked."""
    ca, cert = secured.folder / "ca.crt", secured.folder / "client.crt"
    asyncio.run(_works(secured.url("TLS", ca=ca), "tls"))
    asyncio.run(_works(secured.url("MUTUAL", ca=ca, cert=cert, key=secured.folder / "client.key"), "mutual"))
    key, passphrase = secured.folder / "locked.key", secured.folder / "passphrase"
    url = secured.url("MUTUAL", ca=ca, cert=cert, key=key, key_password_file=passphrase)
    asyncio.run(_works(url, "mutual-locked"))


def test_tls_that_does_not_hold(secured: _Secured) -> None:
    """A server nobody vouches for, no certificate, or a stranger's, is an UnauthorisedError."""
    ca, strange = secured.folder / "ca.crt", secured.folder / "strange.crt"
    for url in (
        secured.url("TLS", ca=strange),
        secured.url("TLS", tls="true"),
        secured.url("MUTUAL", ca=ca),
        secured.url("MUTUAL", ca=ca, cert=strange, key=secured.folder / "strange.key"),
    ):
        with pytest.raises(UnauthorisedError):
            asyncio.run(_open(url))


def test_a_key_that_cannot_be_used(secured: _Secured) -> None:
    """A locked key without its passphrase is a BusURLError, and nobody is asked on the terminal."""
    url = secured.url(
        "MUTUAL",
        ca=secured.folder / "ca.crt",
        cert=secured.folder / "client.crt",
        key=secured.folder / "locked.key",
    )
    with pytest.raises(BusURLError):
        asyncio.run(_open(url))


def test_nobody_there() -> None:
    """A port where nothing answers, and a name that does not exist, are UnreachableErrors within the timeout."""
    for host in ("127.0.0.1:1", "nowhere.invalid:9092"):
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=host.partition(":")[0]):
            asyncio.run(_open(f"kafka://{host}?timeout=1s"))
        assert time.monotonic() - began < 10


def test_a_topic_that_is_missing(secured: _Secured) -> None:
    """With ``create=false`` a topic that is not there is a NoSuchTopicError for everybody, and none is made."""

    async def run() -> None:
        url = f"{secured.server.url}?create=false"
        async with connect(url) as bus, await bus.producer() as producer:
            with pytest.raises(NoSuchTopicError, match="create it"):
                await producer.publish("missing", b"{}")
            with pytest.raises(NoSuchTopicError):
                await bus.consumer("missing", "g")
            assert "missing" not in await bus.topics()

    asyncio.run(run())


@pytest.mark.parametrize("count", [1, 150])
def test_a_topic_that_was_deleted_is_made_again(secured: _Secured, count: int) -> None:
    """Publishing goes on when somebody deletes the topic, and the new one has another epoch."""
    from confluent_kafka.admin import AdminClient

    topic = f"deleted-{count}"

    def delete() -> None:
        admin = AdminClient({"bootstrap.servers": secured.server.address})
        for future in admin.delete_topics([topic, retry_topic(topic, "g")]).values():
            future.result(20)

    async def run() -> None:
        async with connect(f"{secured.server.url}?partitions=1&timeout=5s") as bus:
            async with await bus.producer() as producer:
                await producer.publish_many([Message(topic, b"1")] * count)
                async with await bus.consumer(topic, "g") as consumer:
                    before = consumer.epoch
                    await consumer.ack(await consumer.receive(1, timeout=20.0))
                await asyncio.to_thread(delete)
                await _persist(bus, topic, b"2", count)
            async with connect(f"{secured.server.url}?partitions=1") as later:
                consumer = await later.consumer(topic, "g")
                assert consumer.epoch != before
                got = await consumer.receive(count, timeout=20.0)
                assert {each.body for each in got} == {b"2"}

    asyncio.run(run())


async def _persist(bus: Bus, topic: str, body: bytes, count: int) -> None:
    """Publish as the engine does: again while the error is a passing one."""
    async with await bus.producer() as producer, asyncio.timeout(60):
        while True:
            try:
                return await producer.publish_many([Message(topic, body)] * count)
            except Exception as error:
                if not getattr(error, "transient", False):
                    raise


def test_what_is_too_large_for_the_broker(tmp_path: Path, secured: _Secured) -> None:
    """A body over ``max_size`` is refused before it is sent; ``max_size`` may be raised for topics made with it."""

    async def run() -> None:
        async with connect(f"{secured.server.url}?partitions=1") as bus, await bus.producer() as producer:
            with pytest.raises(TooLargeError):
                await producer.publish("large", b"x" * 1_000_001)
        async with connect(f"{secured.server.url}?partitions=1&max_size=3MiB") as bus, await bus.producer() as producer:
            await producer.publish("larger", b"x" * 3 * 1024**2)
            async with await bus.consumer("larger", "g") as consumer:
                got = await consumer.receive(1, timeout=20.0)
                await consumer.nack(got, reason="x" * 5000)
                got = await consumer.receive(1, timeout=20.0)
                assert (len(got[0].body), got[0].attempt) == (3 * 1024**2, 2)
                await consumer.ack(got)

    asyncio.run(run())


def test_inner_topics_are_hidden_and_refused(secured: _Secured) -> None:
    """Kafka's own topics and the retry topics are not listed, published to, or read."""

    async def run() -> None:
        async with connect(secured.server.url) as bus, await bus.producer() as producer:
            await (await bus.consumer("seen", "g")).close()
            assert await bus.topics() == sorted(name for name in await bus.topics() if "retry" not in name)
            assert await bus.groups("seen") == ["g"]
            for name in ("__consumer_offsets", retry_topic("seen", "g")):
                with pytest.raises(BadNameError):
                    await producer.publish(name, b"{}")
                with pytest.raises(BadNameError):
                    await bus.consumer(name, "g")

    asyncio.run(run())
