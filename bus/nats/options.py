"""The options of a ``nats:`` URL, and what they mean for the connection."""

from __future__ import annotations

import logging
import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bus.credentials import is_loopback
from bus.errors import BusURLError
from bus.nats.link import Address, Security
from bus.nats.login import Login
from bus.secret import Secret
from bus.units import duration_within, parse_positive_size
from bus.url import BusURL, option

__all__ = ["NatsOptions", "addresses", "security"]

_log = logging.getLogger("taskbus.bus")
_PORT = 4222


def _replicas(text: str) -> int:
    if text not in ("1", "3", "5"):
        raise ValueError("write 1, 3 or 5")
    return int(text)


def _inbox(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}(\.[a-zA-Z0-9_-]{1,64}){0,7}", text):
        raise ValueError("write a subject without wildcards, such as _INBOX")
    return text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_]{1,32}", text):
        raise ValueError("use 1 to 32 of letters, digits and _")
    return text


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """What can stand behind the ``?``."""

    lease: float | None = option(duration_within(0.1, 86400.0), None, "ack_wait of a new group; default 30s")
    max_size: int = option(parse_positive_size, 1023 * 1024, "largest body; 1KiB below the server's max_payload")
    replicas: int = option(_replicas, 1, "copies of a new stream: 1, 3 or 5")
    prefix: str = option(_prefix, "taskbus", "first part of stream and subject names")
    timeout: float = option(duration_within(0.1, 600.0), 5.0, "how long to wait for a connection or a confirmation")
    inbox: str = option(_inbox, "_INBOX", "first part of the subjects on which the server answers us")
    password_file: str = option(str, "", "file with the password of the user in the URL")
    token: Secret | None = field(default=None, metadata={"read": Secret, "help": "token to log in with"})
    token_file: str = option(str, "", "file with the token")
    nkey_file: str = option(str, "", "file with the seed of an nkey")
    creds_file: str = option(str, "", "file with a user JWT and its seed (.creds)")
    tls: bool = False
    tls_first: bool = False
    ca: str = option(str, "", "file with the certificates to trust; default the system's")
    cert: str = option(str, "", "file with our certificate (mTLS)")
    key: str = option(str, "", "file with the key of our certificate")
    allow_insecure: bool = False


def addresses(url: BusURL) -> list[Address]:
    """The servers of the URL."""
    found = []
    for host in url.hosts or ("127.0.0.1",):
        split = urlsplit(f"//{host}")
        if not split.hostname:
            raise BusURLError("nats: a host is missing; write nats://host:4222,host2:4222")
        found.append(Address(split.hostname, split.port or _PORT))
    return found


def security(url: BusURL, options: NatsOptions) -> Security:
    """Who we are and whom we trust.

    Raises:
        BusURLError: two ways to log in, an unreadable file, or a secret in plain text to another host.
        MissingExtraError: a key is to sign, and the library for that is not installed.
    """
    login = _login(url, options)
    encrypted = bool(options.tls or options.tls_first or options.ca or options.cert or options.key)
    if not encrypted and login.given and not all(is_loopback(address.host) for address in addresses(url)):
        if not options.allow_insecure:
            raise BusURLError(
                "nats: this would send credentials unencrypted to another host: add tls=true, or allow_insecure=true"
            )
        _log.warning("%s: credentials are sent unencrypted (allow_insecure)", url, extra={"event": "bus-insecure"})
    login.answer("")  # a file that cannot be read is told now
    return Security(login, _context(options) if encrypted else None, options.tls_first)


def _login(url: BusURL, options: NatsOptions) -> Login:
    ways = [name for name in ("token", "token_file", "nkey_file", "creds_file") if getattr(options, name)]
    if url.user is not None:
        ways.append("a user")
        if url.password is not None and options.password_file:
            raise BusURLError("nats: give the password in the URL or in password_file, not both")
        if url.password is None and not options.password_file:
            # What stands there alone would be a token, and shown wherever the URL is.
            raise BusURLError(
                "nats: a user needs a password, as in nats://user:password@host or password_file=FILE; "
                "a token is given as token=TOKEN or token_file=FILE"
            )
    elif options.password_file:
        raise BusURLError("nats: password_file needs a user, as in nats://user@host?password_file=secret")
    if len(ways) > 1:
        raise BusURLError(f"nats: log in one way only, not by {' and '.join(ways)}")
    return Login(
        url.user,
        url.password,
        options.password_file,
        options.token,
        options.token_file,
        options.nkey_file,
        options.creds_file,
    )


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
