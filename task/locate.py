"""On which line of a TOML or YAML text each key stands, so that an error can point at it.

Both functions take text that its parser accepts. A place is the keys and list positions that lead to a value, as in
``("rule", 0, "cron")``.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

__all__ = ["Place", "toml_lines", "yaml_lines"]

Place = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(#.*)?")
_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'))*)\s*="""
)
#: A line on which a value that began on an earlier one may end.
_MAY_END = re.compile(r""".*[\]}"'][\s,]*(#.*)?$""")
#: Values a YAML text may stand for once its aliases are written out. Rule files have thousands; a bomb has more.
_MAX_VALUES = 100_000


def toml_lines(text: str) -> dict[Place, int]:
    """The line of every table and key. What stands inside a value is not located by itself."""
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    open_value = ""
    for number, line in enumerate(text.split("\n"), 1):
        if open_value:
            open_value += "\n" + line
            if _MAY_END.match(line) and _complete(open_value):
                open_value = ""
            continue
        if header := _HEADER.fullmatch(line):
            path = _resolve(_parts(header[2]), counts)
            if header[1] == "[[":
                counts[path] = counts.get(path, -1) + 1
                lines.setdefault(path, number)
                path = (*path, counts[path])
            table = path
            lines[table] = number
        elif key := _KEY.match(line):
            place = table
            for part in _parts(key[1]):
                place = (*place, part)
                lines.setdefault(place, number)
            if not _complete(line):
                open_value = line
    return lines


def _complete(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _parts(dotted: str) -> list[str]:
    """The keys of ``a."b c".d``, read by TOML itself."""
    found: Any = tomllib.loads(f"{dotted} = 0")
    parts: list[str] = []
    while isinstance(found, dict):
        ((part, found),) = found.items()
        parts.append(part)
    return parts


def _resolve(parts: list[str], counts: dict[Place, int]) -> Place:
    """A header's keys as a place: an array of tables that leads there means its last table."""
    place: Place = ()
    for index, part in enumerate(parts):
        place = (*place, part)
        if index < len(parts) - 1 and place in counts:
            place = (*place, counts[place])
    return place


def yaml_lines(text: str) -> dict[Place, int]:
    """The line of every key and list item.

    Raises:
        yaml.YAMLError: if it is not YAML.
        ValueError: if its aliases stand for more values than any sane file has.
    """
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines: dict[Place, int] = {}
    todo: list[tuple[Any, Place]] = [(root, ())] if root is not None else []
    seen = 0
    while todo:
        node, place = todo.pop()
        seen += 1
        if seen > _MAX_VALUES:
            raise ValueError("its aliases stand for too many values")
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, str(key.value))
                lines[inner] = key.start_mark.line + 1
                todo.append((value, inner))
        elif isinstance(node, yaml.SequenceNode):
            todo += [(item, (*place, index)) for index, item in enumerate(node.value)]
    return lines
