"""The options of a ``pubsub:`` URL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from bus.errors import BusURLError
from bus.units import format_duration, parse_duration, parse_size
from bus.url import BusURL, option, parse_options

__all__ = ["LARGEST", "PubsubOptions", "read_options"]

_PROJECT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+):\d{1,5}")
#: A request of the service has 10 MB: https://cloud.google.com/pubsub/quotas#resource_limits. This and its frame fit.
LARGEST = 19 * 1024**2 // 2
_VARIABLE = "PUBSUB_EMULATOR_HOST"


def _whole(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        seconds = parse_duration(text)
        if not least <= seconds <= most or seconds != int(seconds):
            raise ValueError(f"must be whole seconds, {format_duration(least)} to {format_duration(most)}")
        return seconds

    return read


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if not 0.1 <= seconds <= 600:
        raise ValueError("must be 100ms to 10m")
    return seconds


def _attempts(text: str) -> int:
    if not re.fullmatch(r"\d{1,3}", text) or int(text) not in (0, *range(5, 101)):
        raise ValueError("write 5 to 100, or 0 for no dead-letter policy")
    return int(text)


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_-]{0,31}", text) or text.startswith("goog"):
        raise ValueError("use 1 to 32 of letters, digits, - and _, with a letter first, and not goog")
    return text


def _size(text: str) -> int:
    size = parse_size(text)
    if not 1 <= size <= LARGEST:
        raise ValueError("must be 1 byte to 9.5MiB, which is what Pub/Sub takes")
    return size


def _address(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("write host:port")
    return text


@dataclass(frozen=True, slots=True)
class PubsubOptions:
    """What can stand behind the ``?``."""

    emulator: str | None = option(str, None, "host:port of an emulator, or true: PUBSUB_EMULATOR_HOST; unencrypted")
    endpoint: str = option(_address, "", "a regional endpoint, as europe-west1-pubsub.googleapis.com:443")
    lease: float = option(_whole(1, 600), 30.0, "time a delivery stays with its consumer unless extended")
    max_attempts: int = option(_attempts, 100, "deliveries after which Pub/Sub itself dead-letters; 0 = never")
    #: New subscriptions keep the order of messages with the same key, or deliver exactly once.
    ordering: bool = False
    exactly_once: bool = False
    retention: float = option(_whole(600, 31 * 86400), 7 * 86400.0, "how long new subscriptions keep what nobody takes")
    #: Make topics and subscriptions that are missing.
    create: bool = True
    prefix: str = option(_prefix, "taskbus", "first part of the ids of topics and subscriptions")
    max_size: int = option(_size, LARGEST, "largest body")
    timeout: float = option(_seconds, 10.0, "how long to wait for an answer")

    @property
    def emulated(self) -> bool:
        """Whether there is no encryption, no credential, and nothing is kept."""
        return self.emulator is not None


def read_options(url: BusURL) -> tuple[str, PubsubOptions]:
    """The project, and the options checked with each other. Raises BusURLError."""
    options = parse_options(url, PubsubOptions)
    if url.path or url.user is not None or len(url.hosts) != 1 or not _PROJECT.fullmatch(url.hosts[0]):
        raise BusURLError(
            "pubsub: needs the id of one project and nothing else before the ?, as in pubsub://my-project"
        )
    return url.hosts[0], _with_emulator(options)


def _with_emulator(options: PubsubOptions) -> PubsubOptions:
    """An emulator is used only where the URL says so, as it is neither encrypted nor durable."""
    given, variable = options.emulator, os.environ.get(_VARIABLE, "")
    if given is not None and given.lower() in ("false", "no", "off", "0"):
        return replace(options, emulator=None)
    if given is None:
        if variable:
            raise BusURLError(
                f"pubsub: {_VARIABLE}={variable} is set, but the URL does not ask for an emulator: add emulator=true "
                "to use that one, emulator=false to use the service, or unset the variable"
            )
        return options
    if given.lower() in ("", "true", "yes", "on", "1"):
        if not variable:
            raise BusURLError(f"pubsub: emulator=true needs {_VARIABLE}=host:port; or write emulator=127.0.0.1:8085")
        given = variable
    if not _HOST.fullmatch(given):
        raise BusURLError(f"pubsub: {given!r} is not the address of an emulator: write host:port, as 127.0.0.1:8085")
    if options.endpoint:
        raise BusURLError("pubsub: endpoint is of the service, and emulator is instead of it: give one of them")
    return replace(options, emulator=given)
