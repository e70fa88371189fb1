"""From what gRPC and google-auth raise to the error tree of :mod:`bus.errors`."""

from __future__ import annotations

from grpc import StatusCode
from grpc.aio import AioRpcError

from bus.errors import (
    BusError,
    CorruptError,
    FullError,
    NoSuchTopicError,
    UnauthorisedError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
)

__all__ = ["AGAIN", "MAPPED", "failed", "mapped", "refused_ids"]

#: Every status: https://cloud.google.com/pubsub/docs/reference/error-codes
MAPPED: dict[StatusCode, type[BusError]] = {
    StatusCode.OK: UnconfirmedError,
    StatusCode.CANCELLED: UnconfirmedError,
    StatusCode.UNKNOWN: UnconfirmedError,
    StatusCode.INVALID_ARGUMENT: UnsupportedError,
    StatusCode.DEADLINE_EXCEEDED: UnconfirmedError,
    StatusCode.NOT_FOUND: NoSuchTopicError,
    StatusCode.ALREADY_EXISTS: UnsupportedError,
    StatusCode.PERMISSION_DENIED: UnauthorisedError,
    StatusCode.UNAUTHENTICATED: UnauthorisedError,
    StatusCode.RESOURCE_EXHAUSTED: FullError,
    StatusCode.FAILED_PRECONDITION: UnsupportedError,
    StatusCode.ABORTED: UnconfirmedError,
    StatusCode.OUT_OF_RANGE: UnsupportedError,
    StatusCode.UNIMPLEMENTED: UnsupportedError,
    StatusCode.INTERNAL: UnconfirmedError,
    StatusCode.UNAVAILABLE: UnreachableError,
    StatusCode.DATA_LOSS: CorruptError,
}
#: What Google says to try again, and what passes by itself.
AGAIN = frozenset((StatusCode.UNAVAILABLE, StatusCode.ABORTED, StatusCode.INTERNAL, StatusCode.UNKNOWN))
_ADVICE: dict[type[BusError], str] = {
    FullError: "; wait, or raise the quota of the project",
    UnauthorisedError: "; check the Application Default Credentials and the roles they have on this project",
}
#: What gRPC says when it could not get a token.
_NO_TOKEN = "Getting metadata from plugin failed"  # noqa: S105 - no secret


def mapped(code: StatusCode, details: str, doing: str, topic: str | None = None) -> BusError:
    """The error of our tree for a status that came while ``doing`` (a text that says what, and where)."""
    kind = UnauthorisedError if _NO_TOKEN in details else MAPPED[code]
    said = details.strip() or code.name.lower().replace("_", " ")
    return kind(f"{doing}: {said}{_ADVICE.get(kind, '')}", topic=topic)


def failed(error: BaseException, doing: str, topic: str | None = None) -> BusError:
    """The error of our tree for anything else which the client libraries raise: nobody was reached."""
    if isinstance(error, BusError):
        return error
    return UnreachableError(f"{doing}: {str(error) or type(error).__name__}", topic=topic)


def refused_ids(error: BaseException | None) -> dict[str, str]:
    """Which ack ids a subscription with exactly-once delivery refused, and why: PERMANENT_… or TRANSIENT_FAILURE_….

    Those of the request that are not among them were settled. Empty if the error is about something else.
    https://cloud.google.com/pubsub/docs/exactly-once-delivery#handle_acknowledgment_failures
    """
    found: dict[str, str] = {}
    if isinstance(error, AioRpcError):
        from google.rpc.error_details_pb2 import ErrorInfo
        from google.rpc.status_pb2 import Status

        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                for detail in Status.FromString(value).details:
                    info = ErrorInfo()
                    if detail.Unpack(info):
                        found.update((id, why) for id, why in info.metadata.items() if "_FAILURE_" in why)
    return found
