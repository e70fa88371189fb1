"""Bus URLs: ``scheme:path?option=value`` or ``scheme://user:password@host:port,host2/path?option=value``."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints
from urllib.parse import parse_qsl, unquote, urlsplit

from bus.errors import BusURLError
from bus.secret import Secret

__all__ = ["INJECT", "BusURL", "nearest", "option", "parse_options", "parse_url"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):")
#: Put before a scheme: the same bus with faults injected (see :mod:`bus.inject`).
INJECT = "inject+"
#: Options whose value is masked wherever a URL is shown.
_SECRET = re.compile(r"(?i)pass|secret|token|jwt|seed|credential|(api|access|account|private|shared)[-_]?key")
_ENCODE = "; write a / in a password as %2F, a ? as %3F and an @ as %40"
Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True, slots=True)
class BusURL:
    """A parsed bus URL. ``str`` and ``repr`` mask the password and secret options."""

    scheme: str
    path: str = ""
    hosts: tuple[str, ...] = ()
    user: str | None = None
    password: Secret | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def adapter(self) -> str:
        """The scheme of the adapter that serves it: what follows ``inject+``, if that is there."""
        return self.scheme.removeprefix(INJECT)

    def __str__(self) -> str:
        text = f"{self.scheme}:"
        if self.hosts or self.user is not None:
            login = "" if self.user is None else self.user + ("" if self.password is None else ":***") + "@"
            text += f"//{login}{','.join(self.hosts)}"
        text += self.path
        if self.options:
            shown = (f"{k}=***" if _is_secret(k) else f"{k}={v}" for k, v in self.options.items())
            text += "?" + "&".join(shown)
        return text

    __repr__ = __str__


def parse_url(text: str) -> BusURL:
    """Read a bus URL.

    Raises:
        BusURLError: if it has no scheme, a bad port or a repeated option. The text shows no secret.
    """
    match = _SCHEME.match(text)
    if not match:
        raise BusURLError(
            f"{_mask(text)!r} is not a bus URL: it needs a scheme, as in sqlite:work.db, file:./tasks or memory:"
        )
    scheme = match[1]
    rest = text[match.end() :]
    main, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in options:
            raise BusURLError(f"{scheme}: option {key!r} is given twice")
        options[key] = value
    if not main.startswith("//"):
        return BusURL(scheme, unquote(main), options=options)
    if main.startswith("///"):
        return BusURL(scheme, unquote(main[2:]), options=options)
    netloc, _, path = main[2:].partition("/")
    login, at, hosts = netloc.rpartition("@")
    user, colon, password = login.partition(":")
    for host in hosts.split(","):
        try:
            _ = urlsplit(f"//{host}").port
        except ValueError:
            # What follows the colon is not shown: it is a piece of the password if that holds an unencoded / or ?.
            raise BusURLError(f"{scheme}: the port of {host.partition(':')[0]!r} is not a number{_ENCODE}") from None
    if "@" in path and not at:
        raise BusURLError(f"{scheme}: there is an @ in the path{_ENCODE}")
    return BusURL(
        scheme,
        "/" + unquote(path) if path else "",
        tuple(host for host in hosts.split(",") if host),
        unquote(user) if at else None,
        Secret(unquote(password)) if colon else None,
        options,
    )


def _is_secret(option: str) -> bool:
    # The seed of the injection is to be seen: it makes a failure happen again.
    return bool(_SECRET.search(option)) and not option.startswith(("inject-", "inject_"))


def _mask(text: str) -> str:
    main, mark, _ = text.partition("?")
    return re.sub(r"(//[^/@:]*|^[^/@:]*):.*@", r"\1:***@", main) + (mark and "?…")


def nearest(word: str, known: list[str]) -> str:
    """``; did you mean 'x'?`` for the closest known word, else the list of known words, for error texts."""
    close = difflib.get_close_matches(word, known, 1, 0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else "; there are none"


def option(read: Callable[[str], Any], default: Any, help: str) -> Any:
    """A field of an adapter's options dataclass: how its text is read, its default and a line of help."""
    return dataclasses.field(default=default, metadata={"read": read, "help": help})


def parse_options(url: BusURL, into: type[Options]) -> Options:
    """Build the options dataclass ``into`` from the URL's query.

    A field made with :func:`option` reads its text by its own reader; a plain ``str``, ``int``, ``float`` or ``bool``
    field by its type.

    Raises:
        BusURLError: naming the unknown option (and the nearest known one) or the value that cannot be read.
    """
    hints = get_type_hints(into)
    known = {f.name: f for f in dataclasses.fields(into)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, text in url.options.items():
        name = key.replace("-", "_")
        if name not in known:
            raise BusURLError(f"the {url.scheme} bus has no option {key!r}{nearest(name, list(known))}")
        read = known[name].metadata.get("read") or _by_type(hints[name])
        try:
            values[name] = read(text)
        except ValueError as error:
            if _is_secret(key):
                raise BusURLError(f"{url.scheme}: the value of the option {key} cannot be read") from None
            raise BusURLError(f"{url.scheme}: option {key}={text!r}: {error}") from None
    return into(**values)


def _by_type(hint: Any) -> Callable[[str], Any]:
    if hint is bool:
        return _read_bool
    if hint in (int, float):
        return _read_int if hint is int else _read_float
    return str


def _read_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,20}", text):
        raise ValueError("write a whole number")
    return int(text)


def _read_float(text: str) -> float:
    if not re.fullmatch(r"[+-]?\d{1,20}(\.\d*)?", text):
        raise ValueError("write a number")
    return float(text)


def _read_bool(text: str) -> bool:
    if text.lower() in ("", "1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("write true or false")
