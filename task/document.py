"""Reading a TOML or YAML file that people write, so that whatever is wrong in it is told with file, line and key."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from task.errors import SettingsError
from task.locate import Misplaced, ValuePath, toml_lines, yaml_lines

__all__ = ["MAX_SIZE", "Document", "load_document", "parse_document"]

#: Bytes: room for 200,000 rules. A longer file is a mistake, such as data given for rules.
MAX_SIZE = 1 << 25

_TOML_PLACE = re.compile(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)
#: So many keys joined by dots. tomllib needs minutes for a line of nothing else, and nobody means one.
_DEEP = 100
_DEEP_KEY = re.compile(rf"""(?<![\w"'-])(?:[\w"'-]+[ \t]*\.[ \t]*){{{_DEEP}}}""")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Document:
    """A file that was read."""

    #: The file, as it was named.
    path: str
    #: What it says. Always a table; dates and times are left as the format reads them.
    data: dict[str, Any]
    _locate: Callable[[], Mapping[ValuePath, int]]

    @cached_property
    def _lines(self) -> Mapping[ValuePath, int]:
        # Finding the lines takes as long as reading the file, and is only needed where something is wrong.
        return self._locate()

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of the value at ``path``, or of the nearest value around it; None for the file as a whole."""
        for length in range(len(path), 0, -1):
            found = self._lines.get(tuple(path[:length]))
            if found:
                return found
        return None

    def error(self, path: Sequence[str | int], message: str) -> SettingsError:
        """The error to raise for the value at ``path``: ``rules.toml:12: rule[0].cron: message``."""
        line = self.line(path)
        place = self.path if line is None else f"{self.path}:{line}"
        return SettingsError(f"{place}: {_dotted(path)}: {message}" if path else f"{place}: {message}")


def load_document(path: str | os.PathLike[str]) -> Document:
    """Read a ``.toml``, ``.yaml`` or ``.yml`` file.

    Raises:
        SettingsError: if it cannot be read, is not UTF-8, is longer than MAX_SIZE or breaks the rules of its format.
    """
    name = os.fspath(path)
    _format(name)
    try:
        with open(name, "rb") as file:
            body = file.read(MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"{name}: cannot be read: {reason}") from None
    if len(body) > MAX_SIZE:
        raise SettingsError(f"{name}: is longer than {MAX_SIZE} bytes")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{name}:{line}: is not UTF-8 text") from None
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """The document that ``text`` is; the ending of ``name`` tells its format. Raises SettingsError."""
    try:
        return _toml(text, name) if _format(name) == "toml" else _yaml(text, name)
    except RecursionError:
        raise SettingsError(f"{name}: is nested too deeply") from None


def _format(name: str) -> str:
    ending = os.path.splitext(name)[1].lower()
    if ending not in (".toml", ".yaml", ".yml"):
        raise SettingsError(f"{name}: its name must end in .toml, .yaml or .yml")
    return "toml" if ending == ".toml" else "yaml"


def _toml(text: str, name: str) -> Document:
    if deep := _deep_key(text):
        raise SettingsError(f"{name}:{text.count(chr(10), 0, deep.start()) + 1}: is nested too deeply")
    try:
        data = tomllib.loads(text)
    except ValueError as error:
        match = _TOML_PLACE.fullmatch(str(error))
        if match is None:
            raise SettingsError(f"{name}: {error}") from None
        line = match[2] or text.count("\n") + 1
        raise SettingsError(f"{name}:{line}: {match[1]}") from None
    return Document(name, data, lambda: toml_lines(text))


def _deep_key(text: str) -> re.Match[str] | None:
    # Counting is much faster than looking for the pattern everywhere, and hardly any file has a line with so many dots.
    return _DEEP_KEY.search(text) if any(line.count(".") >= _DEEP for line in text.split("\n")) else None


def _yaml(text: str, name: str) -> Document:
    import yaml

    try:
        # What safe_load does, with a look at the nodes before values are built from them.
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(name, {}, dict)
        if not isinstance(root, yaml.MappingNode):
            raise SettingsError(f"{name}: must be a table of keys and values")
        lines = yaml_lines(root, loader.construct_object)
        return Document(name, loader.construct_document(root), lambda: lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise SettingsError(f"{name}:{mark.line + 1}: {what}" if mark else f"{name}: {what}") from None
    except Misplaced as error:
        raise SettingsError(f"{name}:{error.line}: {error}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SettingsError(f"{name}:{line}: holds a character no text has: U+{error.character:04X}") from None


def _dotted(path: Sequence[str | int]) -> str:
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += ("." if out else "") + (part if _BARE.fullmatch(part) else repr(part))
    return out
