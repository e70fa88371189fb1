"""The options of an ``nsq:`` URL."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bus.errors import BusURLError
from bus.secret import Secret
from bus.units import duration_within, format_duration, parse_positive_size
from bus.url import BusURL, option, parse_options

__all__ = ["Address", "NsqOptions", "parse_address", "read_options", "tls_context"]

Address = tuple[str, int]

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+)(?::(\d{1,5}))?")
_PORTS = range(1, 65536)


def parse_address(text: str, port: int) -> Address:
    """``host``, ``host:port`` or ``[v6]:port``. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    number = int(match[2] or port) if match else 0
    if match is None or number not in _PORTS:
        raise ValueError(f"{text[:80]!r} is not an address; write host:{port}")
    return match[1].strip("[]"), number


def _http(text: str) -> tuple[str, ...]:
    if text.isdecimal():
        if int(text) not in _PORTS:
            raise ValueError("a port is 1 to 65535")
        return (text,)
    parts = text.split(",")
    for part in parts:
        scheme, _, rest = part.rpartition("://")
        if scheme not in ("", "http", "https"):
            raise ValueError("write the port, or host:4151 or https://host:4152 of each nsqd")
        parse_address(rest, 4151)
    return tuple(parts)


def _lookupd(text: str) -> tuple[str, ...]:
    found = []
    for part in text.split(","):
        url = part if "://" in part else f"http://{part}"
        split = urlsplit(url)
        if split.scheme not in ("http", "https") or split.path not in ("", "/") or split.query or split.username:
            raise ValueError("write http://host:4161, several with commas between")
        parse_address(split.netloc, 4161)
        found.append(f"{split.scheme}://{split.netloc}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class NsqOptions:
    """What can stand behind the ``?``."""

    lookupd: tuple[str, ...] = option(_lookupd, (), "nsqlookupd servers, http://host:4161,http://host2:4161")
    http: tuple[str, ...] = option(_http, (), "HTTP port of the nsqds, or host:port of each; by default the next port")
    lease: float = option(
        duration_within(0.1, 86400.0), 60.0, "time a delivery stays with its consumer unless extended"
    )
    max_lease: float = option(duration_within(0.1, 30 * 86400.0), 900.0, "--max-msg-timeout of the nsqds")
    max_delay: float = option(duration_within(0.001, 365 * 86400.0), 3600.0, "--max-req-timeout of the nsqds")
    max_size: int = option(parse_positive_size, 1024**2, "largest body, at most --max-msg-size of the nsqds")
    heartbeat: float = option(duration_within(1.0, 60.0), 10.0, "time between heartbeats; two missed end a connection")
    timeout: float = option(duration_within(0.1, 600.0), 10.0, "how long to wait for a connection or a confirmation")
    poll: float = option(duration_within(0.1, 3600.0), 10.0, "time between two questions to nsqlookupd")
    auth_secret: Secret | None = field(default=None, metadata={"read": Secret, "help": "secret for AUTH"})
    plain_auth: bool = False
    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""


def read_options(url: BusURL) -> NsqOptions:
    """The options, checked with each other. Raises BusURLError."""
    options = parse_options(url, NsqOptions)
    if url.path or url.user is not None:
        raise BusURLError("nsq: takes hosts and options; write nsq://host:4150 and, for AUTH, ?auth_secret=…&tls=true")
    if bool(url.hosts) == bool(options.lookupd):
        raise BusURLError("nsq: needs either nsqds or nsqlookupds: nsq://host:4150 or nsq:?lookupd=http://host:4161")
    if options.lease > options.max_lease:
        raise BusURLError(
            f"nsq: lease={format_duration(options.lease)} is over max_lease={format_duration(options.max_lease)}, "
            "which is to be what --max-msg-timeout of the nsqds is"
        )
    if options.auth_secret is not None and not (options.tls or options.plain_auth):
        raise BusURLError("nsq: auth_secret would be sent unencrypted; add tls=true, or plain_auth=true to allow it")
    if not options.tls and (options.tls_ca or options.tls_cert or options.tls_key):
        raise BusURLError("nsq: tls_ca, tls_cert and tls_key need tls=true")
    return options


def tls_context(options: NsqOptions) -> ssl.SSLContext | None:
    """How connections are encrypted, if they are. Raises BusURLError for files that cannot be used."""
    if not options.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=options.tls_ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key or None)
    except (OSError, ValueError) as error:
        raise BusURLError(f"nsq: the files of tls_ca, tls_cert or tls_key cannot be used: {error}") from None
    return context
