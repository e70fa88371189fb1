"""From what the operating system, TLS and the server say to the error tree of :mod:`bus.errors`."""

from __future__ import annotations

import ssl

from bus.errors import (
    BusError,
    BusURLError,
    FullError,
    NoSuchTopicError,
    UnauthorisedError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
)

__all__ = ["api_error", "mapped", "server_error"]

#: What JetStream answers when a limit of storage or number is reached, in any of its ways.
_FULL = ("resource", "maximum", "exceeded", "insufficient", "no space")
#: What a server says of credentials: https://github.com/nats-io/nats-server/blob/main/server/errors.go
_CREDENTIALS = ("authorization", "authentication", "revoked", "credentials", "not allowed")

#: JetStream's own numbers: https://github.com/nats-io/nats-server/blob/main/server/errors.json
_NO_ACCOUNT = 10039
#: The same message was sent before and is not stored yet, nor refused.
_IN_PROCESS = 10158


def mapped(error: BaseException, doing: str, topic: str | None = None) -> BusError:
    """The error of our tree for ``error``, which came while ``doing`` (a text with the server's address)."""
    if isinstance(error, BusError):
        return error
    text = f"{doing}: {str(error) or type(error).__name__}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnauthorisedError(f"{text}; check ca, and that the certificate names this host", topic=topic)
    if isinstance(error, ssl.SSLError):
        return UnauthorisedError(f"{text}; check tls, ca, cert and key", topic=topic)
    return UnreachableError(text, topic=topic)


def server_error(text: str, where: str, topic: str | None = None) -> BusError:
    """The error of our tree for what a server says after ``-ERR``."""
    lower = text.lower()
    if lower.startswith("permissions violation"):
        return UnauthorisedError(f"{where}: {text}; give this user the permission", topic=topic)
    if any(word in lower for word in _CREDENTIALS):
        return UnauthorisedError(f"{where}: {text}; check the user, token, nkey or creds file", topic=topic)
    if "tls" in lower or "secure connection" in lower:
        return BusURLError(f"{where}: {text}; add tls=true")
    if "maximum payload" in lower:
        return BusURLError(f"{where}: {text}; lower the option max_size", topic=topic)
    return UnreachableError(f"{where}: {text}", topic=topic)


def api_error(error: dict[str, object], doing: str, topic: str | None = None) -> BusError:
    """The error of our tree for the ``error`` of a JetStream answer."""
    description = str(error.get("description", "no reason given"))
    text = f"{doing}: {description} ({error.get('err_code', error.get('code'))})"
    code = error.get("code")
    if error.get("err_code") == _NO_ACCOUNT:
        return UnsupportedError(f"{text}; this user's account has no JetStream: enable it on the server", topic=topic)
    if error.get("err_code") == _IN_PROCESS:
        return UnconfirmedError(text, topic=topic)
    if any(word in description.lower() for word in _FULL):
        return FullError(f"{text}; make room or raise the limit", topic=topic)
    if code == 404:
        return NoSuchTopicError(text, topic=topic)
    if code in (429, 500, 503):
        return UnreachableError(text, topic=topic)
    return UnsupportedError(text, topic=topic)
