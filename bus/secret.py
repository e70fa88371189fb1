"""Values that must never be printed."""

from __future__ import annotations

__all__ = ["Secret"]


class Secret:
    """A string whose ``str`` and ``repr`` are ``***``. Only :meth:`reveal` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Call it only where it is handed to the client library."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)
