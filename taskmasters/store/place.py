"""Where state is kept: a path, or a database URL as ``--state`` takes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from bus import BusURLError, parse_url
from bus.url import nearest
from task.errors import SettingsError

__all__ = ["Place", "find_place"]

#: Scheme of the URL → SQLAlchemy's name of dialect and driver, and the extra that brings the driver.
_DRIVERS = {
    "postgresql": ("postgresql+psycopg", "postgres"),
    "postgres": ("postgresql+psycopg", "postgres"),
    "mysql": ("mysql+pymysql", "mysql"),
    "mariadb": ("mysql+pymysql", "mysql"),
}
_SCHEMES = ["sqlite", *_DRIVERS]
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!\\)")


@dataclass(frozen=True, slots=True)
class Place:
    """A database. ``shown`` is its name for people, without secrets."""

    url: URL
    shown: str
    #: Extra of taskbus that brings the driver; empty for SQLite.
    extra: str = ""

    @property
    def sqlite(self) -> bool:
        """Whether it is a SQLite file, or SQLite in memory."""
        return not self.extra

    @property
    def memory(self) -> bool:
        """Whether it is gone with the process."""
        return self.sqlite and not self.url.database

    def __repr__(self) -> str:
        return f"Place({self.shown!r})"


def find_place(text: str) -> Place:
    """Read ``work.db``, ``sqlite:///work.db``, ``:memory:``, ``postgresql://…`` or ``mysql://…``.

    Raises:
        SettingsError: for an unknown scheme or a URL that cannot be read. The text shows no password.
    """
    match = _URL.match(text)
    if match is None:
        return _sqlite("" if text == ":memory:" else text)
    scheme = match[1].lower()
    if scheme == "sqlite":
        # sqlite:///relative.db and sqlite:////absolute.db, as SQLAlchemy writes them, and sqlite:relative.db.
        rest = text[match.end() :]
        path = rest[3:] if rest.startswith("///") else rest
        if path.startswith("//") or "?" in path:
            raise SettingsError(f"{text!r}: write sqlite:///FILE, or only the name of the file")
        return _sqlite("" if path == ":memory:" else path)
    if scheme not in _DRIVERS:
        raise SettingsError(f"state cannot be kept in {scheme}:{nearest(scheme, _SCHEMES)}")
    driver, extra = _DRIVERS[scheme]
    try:
        shown = str(parse_url(text))
        url = make_url(f"{driver}{text[match.end() - 1 :]}")
    except BusURLError as error:
        raise SettingsError(f"the URL of the state cannot be read: {error}") from None
    except (ArgumentError, ValueError):
        raise SettingsError(f"{scheme}: the URL of the state cannot be read: write {scheme}://USER@HOST/NAME") from None
    if not url.database:
        raise SettingsError(f"{shown} names no database: write {scheme}://USER@HOST/NAME")
    return Place(url, shown, extra)


def _sqlite(path: str) -> Place:
    return Place(URL.create("sqlite", database=path or None), path or ":memory:")
