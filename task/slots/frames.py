"""Messages between an application and its worker processes: a length, then JSON."""

from __future__ import annotations

import socket
import threading
from typing import Any

import orjson

__all__ = ["Frames"]


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
        """Wait for one object. None if the other side has gone."""
        try:
            size = int.from_bytes(self._stream.read(4), "big")
            data = self._stream.read(size) if size else b""
        except (OSError, ValueError):
            return None
        return orjson.loads(data) if size and len(data) == size else None

    def close(self) -> None:
        """Let go; a waiting ``receive`` of the other side returns None."""
        self._stream.close()
        self._socket.close()
