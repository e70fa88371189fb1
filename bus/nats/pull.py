"""One pull: a request for messages that the server answers over a while, and how it tells that it is over.

https://docs.nats.io/reference/reference-protocols/nats_api_reference (``CONSUMER.MSG.NEXT``) and
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-37.md
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

__all__ = ["HEARTBEAT", "LONGEST", "Pull"]

#: Seconds a pull waits for a message before it is made again.
LONGEST = 30.0
#: Seconds between two signs of life of a pull that waits. When two are missing the server has forgotten it.
HEARTBEAT = 2.0
#: Seconds the end of a pull may be late before it counts as lost.
_LATE = 1.0
#: Ends that are no trouble: nothing there, time is over.
_ENDS = frozenset((b"404", b"408"))


@dataclass(slots=True)
class Pull:
    """``wanted`` messages are yet to come, unless it is over before. ``seconds`` None asks only for what is there."""

    number: int
    wanted: int
    seconds: float | None
    made: float = 0.0
    #: When it counts as lost.
    ends: float = 0.0
    #: What the server refused it with; empty if it did not.
    refusal: str = ""

    def __post_init__(self) -> None:
        self.made = time.monotonic()
        self.alive()

    @property
    def over(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.wanted <= 0

    @property
    def beats(self) -> bool:
        """Whether it is long enough for signs of life. The server wants it twice as long as their distance."""
        return self.seconds is not None and self.seconds >= 2 * HEARTBEAT

    def body(self) -> bytes:
        """The request."""
        if self.seconds is None:
            return b'{"batch":%d,"no_wait":true}' % self.wanted
        ask = {"batch": self.wanted, "expires": max(int(self.seconds * 1e9), 1_000_000)}
        if self.beats:
            ask["idle_heartbeat"] = int(HEARTBEAT * 1e9)
        return json.dumps(ask).encode()

    def alive(self) -> None:
        """There was a sign of life."""
        life = 2 * HEARTBEAT if self.beats else self.seconds or 0.0
        self.ends = time.monotonic() + life + _LATE

    def told(self, status: bytes, head: bytes) -> None:
        """The server said something of it. After anything but a sign of life it is over."""
        if status == b"100":
            self.alive()
            return
        self.wanted = 0
        if status not in _ENDS:
            self.refusal = head[9:].partition(b"\r\n")[0].decode(errors="replace")
