"""Standard output: one JSON line for each task, and nothing else."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Iterable

import orjson

from bus.errors import OutputClosedError

__all__ = ["as_line", "print_lines"]


def as_line(body: bytes) -> bytes:
    """A message body as one line of JSON, without the newline.

    JSON stays as it is, line breaks between its parts apart. Anything else is wrapped as dead letters do it:
    ``{"body": text}``, or ``{"body_base64": …}`` for what is not UTF-8.
    """
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return orjson.dumps({"body": body.decode()})
        except UnicodeDecodeError:
            return orjson.dumps({"body_base64": b64encode(body).decode()})
    # Inside a JSON text a line break is always written \n, so a real one can only stand between two parts.
    return body.replace(b"\r", b" ").replace(b"\n", b" ").strip()


def print_lines(lines: Iterable[bytes]) -> None:
    """Write lines and flush.

    Raises:
        OutputClosedError: if nobody reads them any more.
        OSError: if they cannot be written.
    """
    if sys.stdout is None:
        raise OutputClosedError("standard output is closed")
    try:
        sys.stdout.buffer.write(b"".join(line + b"\n" for line in lines))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise OutputClosedError("nobody reads the output any more") from None
