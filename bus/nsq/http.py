"""Just enough HTTP to ask nsqd and nsqlookupd. https://nsq.io/components/nsqd.html"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from bus.errors import UnreachableError
from bus.nsq.options import parse_address

__all__ = ["Answer", "ask"]

_LARGEST = 64 * 1024**2


class Answer(NamedTuple):
    """``found`` is the JSON, ``None`` if there is no such thing; ``date`` the server's clock, in whole seconds."""

    found: Any
    date: int


async def ask(
    url: str,
    timeout: float,
    query: Mapping[str, str],
    *,
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
    hint: str = "",
) -> Answer:
    """One request. Raises UnreachableError, with ``hint`` about what to do."""
    split = urlsplit(url)
    tls = tls or ssl.create_default_context() if split.scheme == "https" else None
    host, port = parse_address(split.netloc, 443 if tls else 80)
    target = f"{split.path or '/'}?{urlencode(query)}"
    # HTTP/1.0: the answer ends with the connection, in one piece.
    request = (
        f"{method} {target} HTTP/1.0\r\nHost: {split.netloc}\r\nContent-Length: 0\r\n"
        "Accept: application/vnd.nsq; version=1.0\r\n\r\n"
    )
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(request.encode("ascii"))
                answer = bytearray()
                while piece := await reader.read(65536):
                    answer += piece
                    if len(answer) > _LARGEST:
                        raise ValueError("an endless answer")
            finally:
                writer.transport.abort()
        return _read(bytes(answer))
    except (OSError, ValueError, IndexError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else error
        raise UnreachableError(f"{split.scheme}://{split.netloc} does not answer as NSQ does: {why}{hint}") from None


def _read(answer: bytes) -> Answer:
    """Raises ValueError, IndexError."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if not lines[0].startswith(b"HTTP/"):
        raise ValueError("that is no HTTP port")
    status = lines[0].split(b" ", 2)[1]
    date = 0
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"date":
            try:
                date = int(parsedate_to_datetime(value.decode("ascii")).timestamp())
            except (TypeError, OverflowError):
                raise ValueError("a date that is none") from None
    if status == b"404":
        return Answer(None, date)
    if status != b"200":
        raise ValueError(f"status {status.decode('ascii', 'replace')} {body[:80].decode('ascii', 'replace')}")
    try:
        return Answer(json.loads(body) if body.strip() else None, date)
    except RecursionError:
        raise ValueError("an answer nested too deeply") from None
