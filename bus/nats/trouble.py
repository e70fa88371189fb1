"""From what nats-py raises to the error tree of :mod:`bus.errors`."""

from __future__ import annotations

import nats.errors as core
import nats.js.errors as js

from bus.errors import (
    BusError,
    BusURLError,
    ClosedError,
    CorruptError,
    FullError,
    NoSuchTopicError,
    UnauthorisedError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
)

__all__ = ["MAPPED", "api_error", "mapped"]

#: The most derived class of an error that stands here decides.
MAPPED: dict[type[BaseException], type[BusError]] = {
    core.Error: UnreachableError,
    core.AuthorizationError: UnauthorisedError,
    core.InvalidUserCredentialsError: UnauthorisedError,
    core.SecureConnRequiredError: BusURLError,
    core.SecureConnWantedError: BusURLError,
    core.SecureConnFailedError: UnauthorisedError,
    core.TimeoutError: UnconfirmedError,
    core.DrainTimeoutError: UnconfirmedError,
    core.FlushTimeoutError: UnconfirmedError,
    core.NoRespondersError: UnreachableError,
    core.StaleConnectionError: UnreachableError,
    core.UnexpectedEOF: UnreachableError,
    core.OutboundBufferLimitError: FullError,
    core.ConnectionClosedError: ClosedError,
    core.ConnectionDrainingError: ClosedError,
    core.ConnectionReconnectingError: UnreachableError,
    core.NoServersError: UnreachableError,
    core.ServerNotInPoolError: UnreachableError,
    core.SlowConsumerError: UnreachableError,
    core.JsonParseError: UnreachableError,
    core.ProtocolError: UnreachableError,
    core.MaxPayloadError: BusURLError,
    core.BadSubscriptionError: UnsupportedError,
    core.BadSubjectError: UnsupportedError,
    core.BadHeaderError: UnsupportedError,
    core.BadTimeoutError: UnsupportedError,
    core.InvalidCallbackTypeError: UnsupportedError,
    core.NotJSMessageError: CorruptError,
    core.MsgAlreadyAckdError: UnsupportedError,
    js.Error: UnreachableError,
    js.APIError: UnsupportedError,
    js.ServiceUnavailableError: UnreachableError,
    js.ServerError: UnreachableError,
    js.NotFoundError: NoSuchTopicError,
    js.BadRequestError: UnsupportedError,
    js.ConsumerInvalidResetError: UnsupportedError,
    js.NoStreamResponseError: UnreachableError,
    js.TooManyStalledMsgsError: UnconfirmedError,
    js.FetchTimeoutError: UnconfirmedError,
    js.ConsumerSequenceMismatchError: UnreachableError,
    js.BucketNotFoundError: NoSuchTopicError,
    js.BadBucketError: UnsupportedError,
    js.KeyValueError: UnsupportedError,
    js.KeyDeletedError: UnsupportedError,
    js.KeyNotFoundError: UnsupportedError,
    js.KeyWrongLastSequenceError: UnsupportedError,
    js.NoKeysError: UnsupportedError,
    js.KeyHistoryTooLargeError: UnsupportedError,
    js.InvalidKeyError: UnsupportedError,
    js.InvalidBucketNameError: UnsupportedError,
    js.InvalidObjectNameError: UnsupportedError,
    js.BadObjectMetaError: UnsupportedError,
    js.LinkIsABucketError: UnsupportedError,
    js.DigestMismatchError: CorruptError,
    js.KeyValueLimitMarkerTTLNotSupportedError: UnsupportedError,
    js.ObjectNotFoundError: NoSuchTopicError,
    js.ObjectDeletedError: UnsupportedError,
    js.ObjectAlreadyExists: UnsupportedError,
}
#: What JetStream answers when a limit of storage or number is reached, in any of its ways.
_FULL = ("resource", "maximum", "exceeded", "insufficient", "no space")


def mapped(error: BaseException, doing: str, topic: str | None = None) -> BusError:
    """The error of our tree for ``error``, which came while ``doing`` (a text with the server's address).

    What is not nats-py's own (``OSError``, ``ssl.SSLError``, a time that ran out) means that nobody was reached.
    """
    if isinstance(error, BusError):
        return error
    text = f"{doing}: {str(error) or type(error).__name__}"
    lower = str(error).lower()
    if "authorization violation" in lower or "authentication" in lower or "permissions violation" in lower:
        return UnauthorisedError(f"{text}; check the user, token, nkey or creds file", topic=topic)
    for kind in type(error).__mro__:
        if found := MAPPED.get(kind):
            return found(text, topic=topic)
    return UnreachableError(text, topic=topic)


def api_error(error: dict[str, object], doing: str, topic: str | None = None) -> BusError:
    """The error of our tree for the ``error`` of a JetStream answer."""
    description = str(error.get("description", "no reason given"))
    text = f"{doing}: {description} ({error.get('err_code', error.get('code'))})"
    if any(word in description.lower() for word in _FULL):
        return FullError(f"{text}; make room or raise the limit", topic=topic)
    code = error.get("code")
    if code == 404:
        return NoSuchTopicError(text, topic=topic)
    if code in (500, 503):
        return UnreachableError(text, topic=topic)
    return UnsupportedError(text, topic=topic)
