"""From what librdkafka reports to the error tree of :mod:`bus.errors`."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException

from bus.errors import (
    BadNameError,
    BusError,
    BusURLError,
    CorruptError,
    FullError,
    NoSuchTopicError,
    UnauthorisedError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
)

__all__ = ["MAPPED", "Trouble", "is_fenced", "is_refusal", "kafka_error", "mapped"]

K = KafkaError
#: What is not listed is worth trying again: UnreachableError.
MAPPED: dict[int, type[BusError]] = {
    **dict.fromkeys(
        (
            K._AUTHENTICATION,
            K._SSL,
            K.SASL_AUTHENTICATION_FAILED,
            K.UNSUPPORTED_SASL_MECHANISM,
            K.ILLEGAL_SASL_STATE,
            K.TOPIC_AUTHORIZATION_FAILED,
            K.GROUP_AUTHORIZATION_FAILED,
            K.CLUSTER_AUTHORIZATION_FAILED,
            K.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            K.DELEGATION_TOKEN_AUTHORIZATION_FAILED,
            K.DELEGATION_TOKEN_EXPIRED,
            K.SECURITY_DISABLED,
        ),
        UnauthorisedError,
    ),
    **dict.fromkeys(
        (
            K._MSG_TIMED_OUT,
            K._TIMED_OUT,
            K._TIMED_OUT_QUEUE,
            K._PURGE_INFLIGHT,
            K._PURGE_QUEUE,
            K.REQUEST_TIMED_OUT,
            K.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ),
        UnconfirmedError,
    ),
    **dict.fromkeys((K._UNKNOWN_TOPIC, K._UNKNOWN_PARTITION, K.UNKNOWN_TOPIC_OR_PART), NoSuchTopicError),
    **dict.fromkeys((K.MSG_SIZE_TOO_LARGE, K.RECORD_LIST_TOO_LARGE, K.INVALID_MSG_SIZE), UnsupportedError),
    **dict.fromkeys((K._QUEUE_FULL, K.KAFKA_STORAGE_ERROR, K.THROTTLING_QUOTA_EXCEEDED), FullError),
    **dict.fromkeys((K._BAD_MSG, K._BAD_COMPRESSION, K.INVALID_MSG), CorruptError),
    **dict.fromkeys(
        (
            K._UNSUPPORTED_FEATURE,
            K._NOT_IMPLEMENTED,
            K.UNSUPPORTED_VERSION,
            K.POLICY_VIOLATION,
            K.INVALID_REQUEST,
            K.INCONSISTENT_GROUP_PROTOCOL,
            K.GROUP_MAX_SIZE_REACHED,
            K.TOPIC_DELETION_DISABLED,
        ),
        UnsupportedError,
    ),
    **dict.fromkeys(
        (
            K._INVALID_ARG,
            K.INVALID_CONFIG,
            K.INVALID_PARTITIONS,
            K.INVALID_REPLICATION_FACTOR,
            K.INVALID_SESSION_TIMEOUT,
            K.INVALID_GROUP_ID,
            K.FENCED_INSTANCE_ID,
        ),
        BusURLError,
    ),
    K.TOPIC_EXCEPTION: BadNameError,
}
#: Errors of a commit which say that the group gave our partitions to others, or is about to say so.
_FENCED = frozenset(
    (
        K.ILLEGAL_GENERATION,
        K.UNKNOWN_MEMBER_ID,
        K.FENCED_MEMBER_EPOCH,
        K.STALE_MEMBER_EPOCH,
        K.REBALANCE_IN_PROGRESS,
        K._ASSIGNMENT_LOST,
    )
)
#: Seconds for which trouble is told after it was last met: longer than librdkafka waits between two tries.
_LATELY = 15.0
_HINTS: dict[type[BusError], str] = {
    UnauthorisedError: "check the user, the password, the certificates and the ACLs",
    NoSuchTopicError: "create the topic, or leave create=true",
}


class Trouble:
    """What lately kept messages from coming. librdkafka tells of trouble while it lasts, and not when it is over."""

    def __init__(self) -> None:
        self._met: tuple[float, KafkaError] | None = None

    @property
    def error(self) -> KafkaError | None:
        """None once nothing was told for a while."""
        met = self._met
        return met[1] if met is not None and time.monotonic() - met[0] < _LATELY else None

    def met(self, error: KafkaError) -> None:
        """There it is, or is still."""
        self._met = time.monotonic(), error

    def over(self) -> None:
        """A message came."""
        self._met = None


def kafka_error(error: BaseException) -> KafkaError | None:
    """What librdkafka says in one of its exceptions."""
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    return None


def mapped(error: BaseException | KafkaError, doing: str, topic: str | None = None) -> BusError:
    """The error of our tree for ``error``, which came while ``doing`` (a text with the server's address)."""
    if isinstance(error, BusError):
        return error
    found = error if isinstance(error, KafkaError) else kafka_error(error)
    if found is None:
        return UnreachableError(f"{doing}: {error or type(error).__name__}", topic=topic)
    kind = UnauthorisedError if is_refusal(found) else MAPPED.get(found.code(), UnreachableError)
    hint = f"; {_HINTS[kind]}" if kind in _HINTS else ""
    return kind(f"{doing}: {found.str()} ({found.name()}){hint}", topic=topic)


def is_refusal(error: KafkaError) -> bool:
    """Whether asking again does not help: who we are, or how we ask, is refused."""
    # What a server thinks of our certificate it says in an alert, and librdkafka calls that a failure of transport.
    return MAPPED.get(error.code()) is UnauthorisedError or "SSL alert" in error.str()


def is_fenced(error: KafkaError) -> bool:
    """Whether a commit was refused because partitions are moving: the group will tell what is still ours."""
    return error.code() in _FENCED
