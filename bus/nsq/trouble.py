"""nsqd's errors and those of the network as errors of the bus."""

from __future__ import annotations

import re
import ssl

from bus.errors import (
    BadNameError,
    BusError,
    BusURLError,
    FullError,
    TooLargeError,
    UnauthorisedError,
    UnreachableError,
    UnsupportedError,
)

__all__ = ["explain", "refused", "unreachable"]

_TOO_BIG = re.compile(r"too big (\d+) > (\d+)")
#: What the peer says of our certificate, in OpenSSL's words.
_CERTIFICATE = re.compile("ALERT_.*CERTIFICATE|ALERT_UNKNOWN_CA|ALERT_ACCESS_DENIED")
_UNAUTHORISED = ("E_AUTH_FAILED", "E_UNAUTHORIZED", "E_AUTH_FIRST", "E_AUTH_ERROR", "E_AUTH_DISABLED")


def explain(data: bytes, where: str, topic: str | None = None) -> BusError:
    """What an error frame of the nsqd at ``where`` means for the user."""
    text = data.decode("ascii", "replace")
    code = text.partition(" ")[0]
    said = f"nsqd {where}{'' if topic is None else f', topic {topic}'}: {text[:300]}"
    if too_big := _TOO_BIG.search(text):
        return TooLargeError(
            f"{said}; raise --max-msg-size of nsqd, or lower max_size in the URL to it",
            topic=topic,
            size=int(too_big[1]),
            limit=int(too_big[2]),
        )
    if code in _UNAUTHORISED:
        hint = "AUTH is off there: leave auth_secret away" if code == "E_AUTH_DISABLED" else "check auth_secret"
        return UnauthorisedError(f"{said}; {hint} and what it permits", topic=topic)
    if "TLS required" in text:
        return UnauthorisedError(f"{said}; add tls=true to the URL", topic=topic)
    if "msg timeout" in text:
        return BusURLError(f"{said}; raise --max-msg-timeout of nsqd, or lower lease in the URL", topic=topic)
    if "DPUB timeout" in text:
        return UnsupportedError(f"{said}; give max_delay in the URL as --max-req-timeout of nsqd is", topic=topic)
    if code in ("E_BAD_TOPIC", "E_BAD_CHANNEL"):
        return BadNameError(said, topic=topic)
    if code in ("E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED"):
        return FullError(f"{said}; nsqd cannot store it, look at its disk and its log", topic=topic)
    return UnreachableError(f"{said}; it is tried again", topic=topic)


def refused(error: BusError) -> bool:
    """Whether trying again is no use until somebody changes a setting."""
    return not error.transient


def unreachable(error: BaseException, where: str) -> BusError:
    """The nsqd at ``where`` could not be reached, went away, or does not trust our certificate."""
    if isinstance(error, ssl.SSLError) and _CERTIFICATE.search(error.reason or ""):
        return UnauthorisedError(
            f"nsqd {where} wants a client certificate that it trusts ({error.reason}); give tls_cert and tls_key"
        )
    why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return UnreachableError(f"nsqd {where} cannot be reached: {why}; check that it runs there")
