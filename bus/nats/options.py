"""The options of a ``nats:`` URL, and what the client library is given for them."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bus.errors import BusURLError
from bus.units import format_duration, parse_duration, parse_positive_size
from bus.url import BusURL, option

__all__ = ["NatsOptions", "credentials", "servers"]

_PORT = 4222


def _duration(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        seconds = parse_duration(text)
        if not least <= seconds <= most:
            raise ValueError(f"must be {format_duration(least)} to {format_duration(most)}")
        return seconds

    return read


def _replicas(text: str) -> int:
    if text not in ("1", "3", "5"):
        raise ValueError("write 1, 3 or 5")
    return int(text)


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_]{1,32}", text):
        raise ValueError("use 1 to 32 of letters, digits and _")
    return text


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """What can stand behind the ``?``."""

    lease: float | None = option(_duration(0.1, 86400.0), None, "ack_wait of a new group; default 30s")
    max_size: int = option(parse_positive_size, 1023 * 1024, "largest body; 1KiB below the server's max_payload")
    replicas: int = option(_replicas, 1, "copies of a new stream: 1, 3 or 5")
    prefix: str = option(_prefix, "taskbus", "first part of stream and subject names")
    timeout: float = option(_duration(0.1, 600.0), 5.0, "how long to wait for a connection or a confirmation")
    password_file: str = option(str, "", "file with the password of the user in the URL")
    token_file: str = option(str, "", "file with the token")
    nkey_file: str = option(str, "", "file with the seed of an nkey")
    creds_file: str = option(str, "", "file with a user JWT and its seed (.creds)")
    tls: bool = False
    ca: str = option(str, "", "file with the certificates to trust; default the system's")
    cert: str = option(str, "", "file with our certificate (mTLS)")
    key: str = option(str, "", "file with the key of our certificate")
    allow_insecure: bool = False


def servers(url: BusURL) -> list[str]:
    """The addresses for the client library. They hold no secret."""
    found = []
    for host in url.hosts or ("127.0.0.1",):
        bracketed = host.startswith("[") and host.endswith("]")
        found.append(f"nats://{host}" if ":" in host and not bracketed else f"nats://{host}:{_PORT}")
    return found


def credentials(url: BusURL, options: NatsOptions) -> dict[str, Any]:
    """What to tell the client library about who we are and whom we trust.

    Raises:
        BusURLError: two ways to log in, an unreadable file, or a secret in plain text to another host.
    """
    given: dict[str, Any] = {}
    ways = []
    if url.user is not None:
        if url.password is not None or options.password_file:
            password = _read(options.password_file) if options.password_file else None
            if password is not None and url.password is not None:
                raise BusURLError("nats: give the password in the URL or in password_file, not both")
            given["user"] = url.user
            given["password"] = password if password is not None else url.password and url.password.reveal()
            ways.append("a user")
        else:
            given["token"] = url.user
            ways.append("a token in the URL")
    elif options.password_file:
        raise BusURLError("nats: password_file needs a user, as in nats://user@host?password_file=secret")
    if options.token_file:
        given["token"] = _read(options.token_file)
        ways.append("token_file")
    if options.nkey_file:
        _read(options.nkey_file)
        given["nkeys_seed"] = options.nkey_file
        ways.append("nkey_file")
    if options.creds_file:
        _read(options.creds_file)
        given["user_credentials"] = options.creds_file
        ways.append("creds_file")
    if len(ways) > 1:
        raise BusURLError(f"nats: log in one way only, not by {' and '.join(ways)}")
    if options.tls or options.ca or options.cert or options.key:
        given["tls"] = _context(options)
    elif ways and not options.allow_insecure and not all(_loopback(host) for host in url.hosts):
        raise BusURLError(
            "nats: this would send credentials unencrypted to another host: add tls=true, or allow_insecure=true"
        )
    return given


def _context(options: NatsOptions) -> ssl.SSLContext:
    if options.key and not options.cert:
        raise BusURLError("nats: key needs cert, the certificate it belongs to")
    try:
        context = ssl.create_default_context(cafile=options.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if options.cert:
            # A key with a passphrase would otherwise be asked for on the terminal.
            context.load_cert_chain(options.cert, options.key or None, password=lambda: "")
    except (OSError, ValueError) as error:
        raise BusURLError(f"nats: ca, cert or key cannot be used: {error}") from error
    return context


def _read(path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            text = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BusURLError(f"nats: {path} cannot be read: {error}") from None
    if not text:
        raise BusURLError(f"nats: {path} is empty")
    return text


def _loopback(host: str) -> bool:
    name = host[1 : host.find("]")] if host.startswith("[") else host.rpartition(":")[0] or host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
