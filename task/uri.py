"""Task values shaped like URIs: ``[scheme://[user[:password]@]host]/path?query#fragment``.

Every text is one: what has no ``scheme://`` is a path, as far as the ``?`` or ``#``. Nothing here raises for a text
from outside but :func:`unescape` and :func:`unescape_query`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

__all__ = ["PARTS", "URI", "escape", "unescape", "unescape_query"]

#: Names of the parts a parameters class can ask for.
PARTS = ("origin", "scheme", "host", "path", "filename", "fragment", "username", "password")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PATH_SAFE = "/:@!$&'()*+,;=~"
_FRAGMENT_SAFE = _PATH_SAFE + "?"


@dataclass(frozen=True, slots=True)
class URI:
    """A task value taken apart, percent-encoded as it was given but for the scheme, which is in lower case.

    A host knows no percent-encoding: one with a ``/`` in it could not be told from host and path in an origin.
    """

    scheme: str = ""
    login: str = ""
    host: str = ""
    path: str = ""
    query: str = ""
    fragment: str = ""

    @classmethod
    def split(cls, value: str) -> URI:
        """Take any text apart."""
        main, _, fragment = value.partition("#")
        main, _, query = main.partition("?")
        match = _SCHEME.match(main)
        if not match:
            return cls(path=main, query=query, fragment=fragment)
        authority, slash, path = main[match.end() :].partition("/")
        login, _, host = authority.rpartition("@")
        return cls(match[1].lower(), login, host, slash + path, query, fragment)

    @classmethod
    def build(cls, parts: dict[str, str], query: str) -> URI:
        """Put plain texts, by the names in :data:`PARTS`, together. ``origin`` comes before what it is made of."""
        scheme, host = parts.get("scheme", ""), parts.get("host", "")
        path = parts.get("path") or parts.get("filename", "")
        if scheme and path and "path" not in parts:
            path = "/" + path
        if "origin" in parts:
            match = _SCHEME.match(parts["origin"])
            scheme, host, path = "", "", parts["origin"]
            if match:
                host, slash, path = path[match.end() :].partition("/")
                scheme, path = match[1], slash + path
        login = quote(parts.get("username", ""), safe="")
        if "password" in parts:
            login += ":" + quote(parts["password"], safe="")
        fragment = quote(parts.get("fragment", ""), safe=_FRAGMENT_SAFE)
        return cls(scheme, login, host, quote(path, safe=_PATH_SAFE), query, fragment)

    def part(self, name: str) -> str:
        """The plain text of one of :data:`PARTS`; empty if there is none. ``origin`` is without user and password.

        Raises:
            ValueError: if its percent-encoding is not UTF-8.
        """
        if name == "origin":
            return (f"{self.scheme}://{self.host}" if self.scheme else "") + unescape(self.path)
        if name == "host":
            return self.host
        if name == "filename":
            return unescape(self.path).rpartition("/")[2]
        if name == "username":
            return unescape(self.login.partition(":")[0])
        if name == "password":
            return unescape(self.login.partition(":")[2])
        return unescape(str(getattr(self, name)))

    def parameters(self) -> list[tuple[str, str]]:
        """The query's keys, plain, and texts, still encoded, in order."""
        pairs = (piece.partition("=") for piece in self.query.split("&") if piece)
        return [(unquote(key.replace("+", " ")), text) for key, _, text in pairs]

    def __str__(self) -> str:
        start, path = "", self.path
        if self.scheme:
            start = f"{self.scheme}://" + (f"{self.login}@" if self.login else "") + self.host
        elif _SCHEME.match(path):
            path = path.replace(":", "%3A", 1)
        query = f"?{self.query}" if self.query else ""
        return start + path + query + (f"#{self.fragment}" if self.fragment else "")


def escape(text: str, safe: str = "") -> str:
    """Percent-encode ``text`` for a query, leaving ``safe`` and what reads better as it is.

    Raises:
        ValueError: if it holds a lone surrogate.
    """
    return quote(text, safe="/@!$'()*;?~" + safe)


def unescape(text: str) -> str:
    """Undo percent-encoding. A ``%`` that encodes nothing stays.

    Raises:
        ValueError: if the bytes so encoded are not UTF-8.
    """
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("its percent-encoding is not UTF-8") from None


def unescape_query(text: str) -> str:
    """The same in a query, where ``+`` is a space.

    Raises:
        ValueError: if the bytes so encoded are not UTF-8.
    """
    return unescape(text.replace("+", " "))
