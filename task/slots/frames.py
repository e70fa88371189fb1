"""Messages between an application and its worker processes: a length, then a JSON object."""

from __future__ import annotations

import socket
import threading
from typing import Any

import orjson

__all__ = ["BrokenFrameError", "Frames"]


class BrokenFrameError(Exception):
    """What came is no message: something else writes to the connection, or reads from it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"no message begins with {data[:20]!r}")


class Frames:
    """One end of a socket on which both sides send JSON objects. ``send`` may be called from several threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._stream = sock.makefile("rb")

    def send(self, frame: dict[str, Any]) -> bool:
        """Send one object. False if the other side has gone."""
        data = orjson.dumps(frame)
        try:
            with self._lock:
                self._socket.sendall(len(data).to_bytes(4, "big") + data)
        except OSError:
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """Wait for one object. None if the other side has gone, in the midst of one too.

        Raises:
            BrokenFrameError: something else came. What follows cannot be read any more.
        """
        try:
            head = self._stream.read(4)
            # Looked at alone: where it is something else, the length is, too, and all of it may never come.
            first = self._stream.read(1)
            if not first:
                return None
            size = int.from_bytes(head, "big") - 1
            if first != b"{" or size < 1:
                raise BrokenFrameError(head + first)
            data = first + self._stream.read(size)
        except (OSError, ValueError):
            return None
        if len(data) <= size:
            return None
        try:
            found: dict[str, Any] = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise BrokenFrameError(head + data) from None
        return found

    def close(self) -> None:
        """Let go; a waiting ``receive`` of the other side returns None."""
        self._stream.close()
        self._socket.close()
