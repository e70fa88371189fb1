"""Topic and group names as JetStream writes them, and back.

A stream or consumer name holds no dot, and a subject no empty token, but our names may have dots anywhere. A dot is
written ``=``, which our names never contain: the encoding is reversible and two names never meet.
"""

from __future__ import annotations

__all__ = ["ANCHOR", "decode", "encode", "stream_name", "stream_topic", "subject_name"]

#: The consumer that keeps messages until a first group exists. No group's name contains ``+``.
ANCHOR = "+keep"


def encode(name: str) -> str:
    """A topic or group name as one token."""
    return name.replace(".", "=")


def decode(token: str) -> str:
    """The reverse of :func:`encode`."""
    return token.replace("=", ".")


def stream_name(prefix: str, topic: str) -> str:
    """The stream of a topic."""
    return f"{prefix}-{encode(topic)}"


def subject_name(prefix: str, topic: str) -> str:
    """The one subject of a topic's stream."""
    return f"{prefix}.{encode(topic)}"


def stream_topic(prefix: str, stream: str) -> str | None:
    """The topic of a stream, ``None`` if the stream is not ours."""
    return decode(stream[len(prefix) + 1 :]) if stream.startswith(f"{prefix}-") else None
