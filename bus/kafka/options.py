"""Options of the URL, and what librdkafka is told about servers and credentials."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bus.credentials import is_loopback, read_secret
from bus.errors import BusURLError
from bus.kafka.copies import HEADERS
from bus.units import duration_within, parse_positive_size
from bus.url import BusURL, option

__all__ = ["USUAL", "KafkaOptions", "connection"]

_PORT = 9092
_MECHANISMS = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}
#: What a broker takes without being told otherwise (``message.max.bytes``), less what a batch adds.
USUAL = 1_040_000
#: Seconds a token without a time of expiry is used before its file is read again.
_TOKEN = 300.0


def _count(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            raise ValueError(f"write a number from 1 to {most}")
        return int(text)

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"write {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return read


def _protocol(text: str) -> str:
    if text.lower() == "share":
        raise ValueError(
            "share groups (KIP-932) are not supported: their client cannot hold a task for longer than the broker's "
            "lock, and the broker drops a task after some deliveries "
            "(docs/decisions/0015-kafka-without-share-groups.md); "
            "write classic or consumer, with more partitions than consumers"
        )
    return _one_of("classic", "consumer")(text)


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """What can stand behind the ``?``."""

    partitions: int = option(_count(10_000), 8, "partitions of a new topic: as many consumers of a group can share it")
    replicas: int | None = option(_count(15), None, "copies of a new topic; default the broker's; from 3 on it is D3")
    retention: float | None = option(
        duration_within(60.0, 86400.0 * 3650),
        None,
        "how long a new topic keeps messages, done or not; default the broker's",
    )
    create: bool = True
    session: float = option(duration_within(0.5, 1800.0), 10.0, "after which a consumer that is silent counts as dead")
    stall: float = option(
        duration_within(1.0, 86400.0), 300.0, "after which a process whose event loop hangs counts as dead"
    )
    handover: float = option(
        duration_within(0.0, 43200.0),
        30.0,
        "how long a task may go on when its partition is to move to another consumer",
    )
    protocol: str = option(_protocol, "classic", "of the group: classic, or consumer (KIP-848)")
    instance: str = option(str, "", "name of this consumer (group.instance.id), so that its restart is no rebalance")
    max_size: int = option(parse_positive_size, 960 * 1024, "largest body")
    timeout: float = option(duration_within(0.1, 600.0), 10.0, "how long to wait for a connection or a confirmation")
    sasl: str = option(_one_of(*_MECHANISMS), "plain", "how to log in: plain, scram-sha-256 or scram-sha-512")
    password_file: str = option(str, "", "file with the password of the user in the URL")
    token_file: str = option(str, "", "file with an OAuth bearer token (JWT), read again before it expires")
    tls: bool = False
    ca: str = option(str, "", "file with the certificates to trust; default the system's")
    cert: str = option(str, "", "file with our certificate (mTLS)")
    key: str = option(str, "", "file with the key of our certificate")
    key_password_file: str = option(str, "", "file with the passphrase of that key")
    allow_insecure: bool = False

    def check(self) -> None:
        """Raise BusURLError where two options do not go together."""
        if self.handover > self.stall / 2:
            raise BusURLError("kafka: handover must be at most half of stall, after which the group gives us up")

    @property
    def largest(self) -> int:
        """Bytes of the largest message: the body, and what a copy of it carries in its headers."""
        return self.max_size + HEADERS


def connection(url: BusURL, options: KafkaOptions) -> dict[str, Any]:
    """What every client of librdkafka is told: where the servers are, who we are, and whom we trust.

    Raises:
        BusURLError: two ways to log in, an unreadable file, or a secret in plain text to another host.
    """
    hosts = url.hosts or ("127.0.0.1",)
    given: dict[str, Any] = {
        "bootstrap.servers": ",".join(_with_port(host) for host in hosts),
        "client.id": "taskbus",
        "log_level": 0,
        "socket.keepalive.enable": True,
        # Half of this is also the time between connecting to a first server and to the one that it names.
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 5000,
        "message.max.bytes": max(options.largest, USUAL),
    }
    login = _login(url, options)
    tls = options.tls or bool(options.ca or options.cert or options.key)
    if login and not tls and not options.allow_insecure and not all(_loopback(host) for host in hosts):
        raise BusURLError(
            "kafka: this would send credentials unencrypted to another host: add tls=true, or allow_insecure=true"
        )
    given["security.protocol"] = ("SASL_" if login else "") + ("SSL" if tls else "PLAINTEXT")
    return given | login | (_tls(options) if tls else {})


def _login(url: BusURL, options: KafkaOptions) -> dict[str, Any]:
    if options.token_file:
        if url.user is not None or options.password_file:
            raise BusURLError("kafka: log in by a user or by token_file, not both")
        read_secret("kafka", "token_file", options.token_file)
        return {"sasl.mechanisms": "OAUTHBEARER", "oauth_cb": lambda _: _token(options.token_file)}
    if url.user is None:
        if options.password_file:
            raise BusURLError("kafka: password_file needs a user, as in kafka://user@host?password_file=secret")
        if "sasl" in url.options:
            raise BusURLError("kafka: sasl needs a user, as in kafka://user:password@host?sasl=scram-sha-512")
        return {}
    if options.password_file and url.password is not None:
        raise BusURLError("kafka: give the password in the URL or in password_file, not both")
    if not options.password_file and url.password is None:
        raise BusURLError(f"kafka: the user {url.user} has no password: write user:password@host, or password_file=…")
    password = (
        read_secret("kafka", "password_file", options.password_file)
        if options.password_file
        else url.password and url.password.reveal()
    )
    return {"sasl.mechanisms": _MECHANISMS[options.sasl], "sasl.username": url.user, "sasl.password": password}


def _tls(options: KafkaOptions) -> dict[str, Any]:
    if options.key and not options.cert:
        raise BusURLError("kafka: key needs cert, the certificate it belongs to")
    if options.key_password_file and not options.key:
        raise BusURLError("kafka: key_password_file needs key, the key it opens")
    given: dict[str, Any] = {"ssl.endpoint.identification.algorithm": "https"}
    for what, name, path in (
        ("ca", "ssl.ca.location", options.ca),
        ("cert", "ssl.certificate.location", options.cert),
        ("key", "ssl.key.location", options.key or options.cert),
    ):
        if path:
            read_secret("kafka", what, path)
            given[name] = os.path.expanduser(path)
    if options.key_password_file:
        given["ssl.key.password"] = read_secret("kafka", "key_password_file", options.key_password_file)
    return given


def _token(path: str) -> tuple[str, float, str, dict[str, str]]:
    """What librdkafka asks for: the token, when it ends, and for whom it is."""
    text = read_secret("kafka", "token_file", path)
    try:
        part = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return text, float(claims.get("exp", time.time() + _TOKEN)), str(claims.get("sub", "taskbus")), {}
    except (IndexError, ValueError, TypeError, AttributeError):
        return text, time.time() + _TOKEN, "taskbus", {}


def _with_port(host: str) -> str:
    bracketed = host.startswith("[") and host.endswith("]")
    return host if ":" in host and not bracketed else f"{host}:{_PORT}"


def _loopback(host: str) -> bool:
    return is_loopback(host[1 : host.find("]")] if host.startswith("[") else host.rpartition(":")[0] or host)
