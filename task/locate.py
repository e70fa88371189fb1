"""On which line of a TOML or YAML text each value stands, so that an error can point at it.

A value is named by the keys and list positions that lead to it, as in ``("rule", 0, "cron")``. Lines count from 1.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import yaml

__all__ = ["Misplaced", "ValuePath", "toml_lines", "yaml_lines"]

#: The keys and list positions that lead to a value.
ValuePath = tuple[str | int, ...]

#: Values a YAML text may stand for once its aliases are written out, and how deep. A big rule file has thousands of
#: values; a bomb has billions, and one that holds itself has no end.
_MAX_VALUES, _MAX_DEPTH = 100_000, 100
_TAG = "tag:yaml.org,2002:"
_KINDS = frozenset(_TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq"))

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<quoted>\"\"\"(?:\\[\s\S]|(?!\"\"\")[^\\])*\"{3,5}|'''(?:(?!''')[\s\S])*'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<bare>[A-Za-z0-9_-]+)
    |(?P<mark>[\s\S])""",
    re.VERBOSE,
)


class Misplaced(ValueError):
    """A YAML text that its parser takes but that nobody means. ``line`` is where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def toml_lines(text: str) -> dict[ValuePath, int]:
    """The line of every key, table and list item. ``text`` must be one that ``tomllib`` reads."""
    lines: dict[ValuePath, int] = {}
    tables: dict[ValuePath, int] = {}  # how many tables each array of tables has so far
    table: ValuePath = ()
    opened: list[tuple[ValuePath, int | None]] = []  # open brackets, with the position in a list or None
    key: list[str] = []
    target: ValuePath | None = None  # the value being read; None while a key or header is
    brackets = 0
    line = began = 1
    for token in _TOKEN.finditer(text):
        kind, found = token.lastgroup, token[0]
        if kind == "space":
            continue
        mark = found if kind == "mark" else ""
        if target is None and not mark:
            began = began if key else line
            key.append(found if kind == "bare" else tomllib.loads(f"key = {found}")["key"])
        elif target is None:
            if mark == "=":
                target = opened[-1][0] if opened else table
                for part in key:
                    target += (part,)
                    lines.setdefault(target, began)
                key = []
            elif mark == "[":
                brackets += 1
            elif mark == "]" and key:
                table = _table(key, brackets > 1, tables)
                for depth in range(1, len(table) + 1):
                    lines.setdefault(table[:depth], began)
                key = []
            elif mark == "}":
                target = opened.pop()[0]
            elif mark == "\n":
                brackets = 0
        elif mark == "\n" and not opened:
            target = None
        elif mark == "," and opened:
            path, at = opened.pop()
            opened.append((path, None if at is None else at + 1))
            target = None if at is None else (*path, at + 1)
        elif mark in ("]", "}"):
            target = opened.pop()[0]
        elif mark != "\n":
            lines.setdefault(target, line)
            if mark == "[":
                opened.append((target, 0))
                target = (*target, 0)
            elif mark == "{":
                opened.append((target, None))
                target = None
        line += found.count("\n")
    return lines


def _table(key: list[str], is_array: bool, tables: dict[ValuePath, int]) -> ValuePath:
    """The path a table header opens: a key that is an array of tables means its last one."""
    path: ValuePath = ()
    for at, part in enumerate(key, 1):
        path += (part,)
        if is_array and at == len(key):
            tables[path] = tables.get(path, 0) + 1
        if path in tables:
            path += (tables[path] - 1,)
    return path


def yaml_lines(root: yaml.Node, build: Callable[[yaml.Node], object]) -> dict[ValuePath, int]:
    """The line of every key and list item below ``root``, as a YAML loader composed it. ``build`` makes the values.

    Raises:
        Misplaced: for a key that is not text or is given twice, a value that is not what it looks like or that JSON
            does not know, and aliases that go in circles or multiply. After this, building the whole is safe.
    """
    import yaml

    lines: dict[ValuePath, int] = {}
    pending: list[tuple[ValuePath, yaml.Node, bool]] = [((), root, False)]
    seen = 0
    while pending:
        path, node, merged = pending.pop()
        seen += 1
        if seen > _MAX_VALUES or len(path) > _MAX_DEPTH:
            raise Misplaced(
                f"more than {_MAX_VALUES} values, or {_MAX_DEPTH} inside each other, come of this; "
                "do aliases multiply or go in circles?",
                _line(node),
            )
        if node.tag not in _KINDS:
            raise Misplaced(f"the tag {node.tag.replace(_TAG, '!!')} means nothing here", _line(node))
        if isinstance(node, yaml.ScalarNode):
            try:
                node.value.encode()
                build(node)
            except (ValueError, KeyError, AttributeError):
                # PyYAML lets out whatever its conversion ran into: 2017-99-99, !!bool x, !!timestamp x.
                kind = node.tag.removeprefix(_TAG)
                raise Misplaced(
                    f"{node.value[:80]!r} cannot be read as {kind}; is it text? Then write it in quotes", _line(node)
                ) from None
        elif isinstance(node, yaml.SequenceNode):
            for at, item in enumerate(node.value):
                # What `<<` merges may be a list of mappings, whose keys all land in this one.
                inner = path if merged else (*path, at)
                lines.setdefault(inner, _line(item))
                pending.append((inner, item, merged))
        elif isinstance(node, yaml.MappingNode):
            own: dict[str, int] = {}
            for key, value in node.value:
                if key.tag == _TAG + "merge":
                    pending.append((path, value, True))
                    continue
                if not isinstance(key, yaml.ScalarNode):
                    raise Misplaced("a key must be text, not a list or mapping", _line(key))
                if key.tag != _TAG + "str":
                    raise Misplaced(f"YAML does not read the key {key.value!r} as text; write it in quotes", _line(key))
                if key.value in own:
                    raise Misplaced(f"{key.value!r} stands here twice; it is also in line {own[key.value]}", _line(key))
                own[key.value] = _line(key)
                inner = (*path, key.value)
                if not merged or inner not in lines:
                    lines[inner] = _line(key)
                pending.append((inner, value, merged))
    return lines


def _line(node: yaml.Node) -> int:
    mark = node.start_mark
    return 0 if mark is None else mark.line + 1
