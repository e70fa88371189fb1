"""What a key-value store is."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from types import TracebackType
from typing import NamedTuple, Self

from bus.errors import BadNameError

__all__ = ["Entry", "KeyValue", "check_key"]

#: The keys that the CLI of NATS takes too: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md
_KEY = re.compile(r"[a-zA-Z0-9_=/-]+(\.[a-zA-Z0-9_=/-]+)*")
_LONGEST = 200


class Entry(NamedTuple):
    """What stands under a key. A revision is never used again for the same key, also after it was deleted; of two, the
    later has the greater."""

    value: bytes
    revision: int


class KeyValue(ABC):
    """A store. Every change of a key happens wholly or not at all, and in one order for everybody.

    With ``ttl``, in seconds, the entry is gone that long after it was written, by the clock of the store and never by
    that of who wrote it; a little later where the store counts in whole seconds. :attr:`least_ttl` is the shortest.

    Every method may raise UnreachableError (nothing was done), UnauthorisedError, ClosedError; every one that writes
    also UnconfirmedError: it may have been done, and who wrote a value of its own sees by reading whether it was.
    """

    #: The shortest ``ttl``, in seconds.
    least_ttl: float = 0.0

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make what is missing. Raises BusError."""

    @abstractmethod
    async def get(self, key: str) -> Entry | None:
        """What stands under ``key``: the latest that was written by anybody. None if nothing does."""

    @abstractmethod
    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        """Write where nothing stands. Returns the revision.

        Raises:
            WrongRevisionError: if something stands there.
            TooLargeError: if the store takes no value of this size.
            UnsupportedError: if it can forget nothing by itself.
        """

    @abstractmethod
    async def update(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        """Write in place of the entry with this revision. Returns the new one.

        Raises:
            WrongRevisionError: if that does not stand there any more.
            TooLargeError, UnsupportedError: as :meth:`create`.
        """

    @abstractmethod
    async def delete(self, key: str, revision: int) -> None:
        """Delete the entry with this revision.

        Raises:
            WrongRevisionError: if that does not stand there any more.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go. Idempotent."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def check_key(key: str) -> str:
    """Return ``key`` if every store takes it.

    Raises:
        BadNameError: saying which characters are allowed.
    """
    if len(key) > _LONGEST or not _KEY.fullmatch(key):
        raise BadNameError(
            f"{key[:80]!r} is not a key: use 1 to {_LONGEST} of letters, digits, '_', '-', '=' and '/', "
            "in parts separated by '.'"
        )
    return key
