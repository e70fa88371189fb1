"""What several adapters ask of a URL that names secrets: their files, and whether they would leave this machine."""

from __future__ import annotations

import ipaddress
import os

from bus.errors import BusURLError

__all__ = ["is_loopback", "read_secret"]


def read_secret(scheme: str, option: str, path: str) -> str:
    """What the file of an option holds, without the white space around it.

    Raises:
        BusURLError: if it cannot be read, is no text, or is empty.
    """
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            text = file.read().strip()
    except (OSError, ValueError) as error:
        # Of bytes that are no text an error shows some.
        why = error.strerror if isinstance(error, OSError) else "it is no file of UTF-8 text"
        raise BusURLError(f"{scheme}: {option} {path} cannot be read: {why}") from None
    if not text:
        raise BusURLError(f"{scheme}: {option} {path} is empty")
    return text


def is_loopback(host: str) -> bool:
    """Whether this host, without a port, is this machine: only ``localhost`` and addresses are known to be."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
