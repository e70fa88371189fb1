"""Which paths a rule is for: ``s3://bucket/in/{yyyy}/{mm}/{dd}/**/*.json``.

``*``, ``?`` and ``[…]`` stand for characters within one part of the path, a part ``**`` for any number of folders.
Time tokens stand for the digits of a moment: the folders of the rule's window are looked into, and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from bus.url import nearest
from taskmasters.zone import EPOCH, Zone

__all__ = ["MOST_FOLDERS", "Glob", "PathPattern", "translate"]

#: The most expansions of a pattern with time tokens: what is looked into at every look.
MOST_FOLDERS = 10_000
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_MAGIC = re.compile(r"[*?\[]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SLUGS = {
    "slug": "{yyyy}/{mm}/{dd}/{hh}",
    "hour_slug": "{yyyy}/{mm}/{dd}/{hh}",
    "day_slug": "{yyyy}/{mm}/{dd}",
    "month_slug": "{yyyy}/{mm}",
}
_SLUG = re.compile(r"(?<!\{)\{(" + "|".join(_SLUGS) + r")\}", re.IGNORECASE)
#: Token → its format and how many digits it has; the coarsest first.
_UNITS = {"yyyy": ("%Y", 4), "mm": ("%m", 2), "dd": ("%d", 2), "hh": ("%H", 2), "min": ("%M", 2)}
_FINER = tuple(_UNITS)


def translate(glob: str) -> str:
    """A regular expression for one part of a path."""
    out = ""
    position = 0
    while position < len(glob):
        sign = glob[position]
        position += 1
        if sign == "*":
            out += "[^/]*"
        elif sign == "?":
            out += "[^/]"
        elif sign == "[" and (end := _end_of_set(glob, position)) > 0:
            negated = glob[position] == "!"
            inner = "".join(char if char == "-" else re.escape(char) for char in glob[position + negated : end])
            out += f"(?!/)[{'^' * negated}{inner.replace('--', '-' + chr(92) + '-')}]"
            position = end + 1
        else:
            out += re.escape(sign)
    return out


def _end_of_set(glob: str, position: int) -> int:
    """Where the ``]`` of a set is that begins before ``position``; -1 if there is none. A first ``]`` is in the set."""
    position += glob.startswith("!", position)
    position += glob.startswith("]", position)
    return glob.find("]", position)


@lru_cache(maxsize=4096)
def _part(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern without time tokens, as the source walks it: a folder, and what may be below it, part by part."""

    root: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Glob:
        """Take a pattern apart at its first part that is no plain name. The last part is never in the root."""
        *folders, last = text.split("/")
        plain = 0
        while plain < len(folders) and not _MAGIC.search(folders[plain]):
            plain += 1
        return cls("/".join(folders[:plain]) or "/", (*folders[plain:], last))

    @staticmethod
    def fits(part: str, name: str) -> bool:
        """Whether a name fits one part."""
        return _part(part).fullmatch(name) is not None


class PathPattern:
    """One pattern with its window. ``lookback`` is seconds; ``text`` begins with ``/`` or with a scheme.

    Raises:
        ValueError: saying what is wrong with it.
    """

    def __init__(self, text: str, zone: Zone, lookback: float) -> None:
        self.text = text
        self._zone = zone
        self._lookback = lookback
        pattern = _SLUG.sub(lambda match: _SLUGS[match[1].lower()], text)
        self._pieces = list(_pieces(pattern))
        found = {name for kind, name in self._pieces if kind == "token"}
        self._units = [unit for unit in _FINER if unit in found]
        for coarse, fine in zip(_FINER, self._units, strict=False):
            if coarse != fine:
                raise ValueError(f"it has {{{self._units[-1]}}} but no {{{coarse}}}: its moment cannot be told")
        plain = "".join(name if kind == "text" else "0" for kind, name in self._pieces)
        scheme = _SCHEME.match(plain)
        self.scheme = scheme[1].lower() if scheme else ""
        body = plain[scheme.end() :] if scheme else plain
        if not body.strip("/") or body.endswith("/"):
            raise ValueError("it must end with the name of files: write FOLDER/* for all files of a folder")
        if any("**" in part and part != "**" for part in body.split("/")):
            raise ValueError("** stands for folders and must be a part of its own: write **/*.json")
        if self._units and len(list(self.globs(0.0))) > MOST_FOLDERS:
            raise ValueError(f"its lookback covers more than {MOST_FOLDERS} folders")
        try:
            self._regex = self._compile(None)
        except re.error as error:
            raise ValueError(f"the set in [ ] is wrong: {error}") from None
        self._beside: dict[str, re.Pattern[str]] = {}

    @property
    def dated(self) -> bool:
        """Whether it has time tokens."""
        return bool(self._units)

    @property
    def root(self) -> str:
        """The folder that everything it is for lies below."""
        first = "".join(name if kind == "text" else "*" for kind, name in self._pieces)
        return Glob.of(first).root

    @property
    def deep(self) -> bool:
        """Whether what it is for may lie in folders below the root."""
        first = "".join(name if kind == "text" else "*" for kind, name in self._pieces)
        return len(Glob.of(first).parts) > 1

    def beside(self, name: str) -> re.Pattern[str]:
        """What fits a file of that name in the same folders."""
        if name not in self._beside:
            self._beside[name] = self._compile(name)
        return self._beside[name]

    def globs(self, now: float) -> Iterator[Glob]:
        """What to look into at that moment: the pattern, once for each moment of the window."""
        seen = set()
        for wall in self._walls(now):
            text = "".join(name if kind == "text" else format(wall, _UNITS[name][0]) for kind, name in self._pieces)
            if text.endswith("/**"):
                text += "/*"
            if text not in seen:
                seen.add(text)
                yield Glob.of(text)

    def match(self, path: str) -> re.Match[str] | None:
        """Whether it is for that path."""
        return self._regex.fullmatch(path)

    def moment(self, match: re.Match[str]) -> datetime | None:
        """The moment the path tells with the pattern's tokens, in its zone; None if it has none or they tell none."""
        wall = self._wall(match)
        if wall is None:
            return None
        seconds = self._zone.moment(int((wall - EPOCH).total_seconds()))
        return datetime.fromtimestamp(seconds, UTC).astimezone(self._zone.info)

    def in_window(self, match: re.Match[str], now: float) -> bool:
        """Whether :meth:`globs` would find it."""
        if not self._units:
            return True
        wall = self._wall(match)
        return wall is not None and self._first(now) <= wall <= self._now(now)

    def _wall(self, match: re.Match[str]) -> datetime | None:
        if not self._units:
            return None
        digits = {unit: int(match[unit]) for unit in self._units}
        try:
            return datetime(  # noqa: DTZ001 - a wall has no zone
                digits["yyyy"], digits.get("mm", 1), digits.get("dd", 1), digits.get("hh", 0), digits.get("min", 0)
            )
        except ValueError:
            return None

    def _now(self, now: float) -> datetime:
        return datetime.fromtimestamp(now, self._zone.info).replace(tzinfo=None)

    def _first(self, now: float) -> datetime:
        return _floor(self._now(now) - timedelta(seconds=self._lookback), self._units[-1])

    def _walls(self, now: float) -> Iterator[datetime]:
        if not self._units:
            yield EPOCH
            return
        wall, last = self._first(now), self._now(now)
        while wall <= last:
            yield wall
            wall = _next(wall, self._units[-1])

    def _compile(self, last: str | None) -> re.Pattern[str]:
        pattern = "".join(name if kind == "text" else f"\0{name}\0" for kind, name in self._pieces)
        if pattern.endswith("/**"):
            pattern += "/*"
        *folders, name = pattern.split("/")
        parts = ["(?:[^/]+/)*" if part == "**" else _translate(part) + "/" for part in folders]
        regex = "".join(parts) + (_translate(name) if last is None else re.escape(last))
        for unit in self._units:
            # The first of several is read; the others must say the same.
            regex = regex.replace(f"\0{unit}\0", f"(?P<{unit}>[0-9]{{{_UNITS[unit][1]}}})", 1)
            regex = regex.replace(f"\0{unit}\0", f"(?P={unit})")
        # A token of the file's own name is not in the name of a file beside it.
        return re.compile(regex, re.DOTALL)


def _translate(part: str) -> str:
    pieces = part.split("\0")
    # A token inside […] would be torn; the rule reader does not promise it.
    return "".join(translate(piece) if number % 2 == 0 else f"\0{piece}\0" for number, piece in enumerate(pieces))


def _pieces(pattern: str) -> Iterator[tuple[str, str]]:
    if "\0" in pattern:
        raise ValueError("a path has no NUL in it")
    position = 0
    for match in _TOKEN.finditer(pattern):
        if match.start() > position:
            yield "text", pattern[position : match.start()]
        position = match.end()
        if match[0] in ("{{", "}}"):
            yield "text", match[0][0]
            continue
        if match[1] is None:
            raise ValueError(f"a single {match[0]!r}; write {match[0] * 2!r} for the brace itself")
        name = match[1].strip().lower()
        if name not in _UNITS:
            raise ValueError(f"unknown token {match[0]}{nearest(name, [*_UNITS, *_SLUGS])}")
        yield "token", name
    if position < len(pattern):
        yield "text", pattern[position:]


def _floor(wall: datetime, unit: str) -> datetime:
    kept = _FINER[: _FINER.index(unit) + 1]
    least = {"mm": ("month", 1), "dd": ("day", 1), "hh": ("hour", 0), "min": ("minute", 0)}
    changes = {field: value for name, (field, value) in least.items() if name not in kept}
    return wall.replace(second=0, microsecond=0, **changes)  # type: ignore[arg-type]


def _next(wall: datetime, unit: str) -> datetime:
    if unit == "yyyy":
        return wall.replace(year=wall.year + 1)
    if unit == "mm":
        return wall.replace(year=wall.year + wall.month // 12, month=wall.month % 12 + 1)
    return wall + {"dd": timedelta(days=1), "hh": timedelta(hours=1), "min": timedelta(minutes=1)}[unit]
