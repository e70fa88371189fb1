"""The program and arguments of a shell worker, with places that the task fills.

A placeholder stays inside the one argument it is written in, whatever the task holds: there is no shell, no word
splitting and no further expansion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bus.url import nearest
from task.errors import Reject, SettingsError
from task.task import Task
from task.uri import URI, unescape_query

__all__ = ["Argv"]

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

_PLAIN: dict[str, Callable[[Task], str]] = {
    "value": lambda task: task.value,
    "origin": lambda task: URI.split(task.value).part("origin"),
    "path": lambda task: URI.split(task.value).part("path"),
    "filename": lambda task: URI.split(task.value).part("filename"),
    "type": lambda task: task.type,
    "job": lambda task: task.job or "",
    "id": lambda task: task.id or "",
}
_NAMED = ("param", "meta")

#: A literal text, or the function that gives the text of a placeholder.
_Part = str | Callable[[Task], str]


class Argv:
    """A program and its arguments.

    Placeholders are ``{value}``; ``{origin}``, the value up to its ``?``; ``{path}``, the origin without ``scheme://host``,
    and ``{filename}``, the last part of that; ``{param:NAME}``, a parameter of its query; ``{meta:NAME}``; ``{type}``,
    ``{job}`` and ``{id}``. A literal brace is written twice.

    Raises:
        SettingsError: for no program at all, a program named by the task, or an unknown placeholder.
    """

    def __init__(self, template: Sequence[str]) -> None:
        if not template or not template[0]:
            raise SettingsError("which program? Write it after --, as in: taskbus worker shell -- gzip {path}")
        self._arguments = [_parse(argument) for argument in template]
        program = self._arguments[0]
        if not all(isinstance(part, str) for part in program):
            raise SettingsError(f"the program cannot come from the task: {template[0]!r}")
        #: The program as it was named.
        self.program = "".join(part for part in program if isinstance(part, str))

    def fill(self, task: Task) -> list[str]:
        """The arguments for ``task``.

        Raises:
            Reject: if the task lacks a parameter, or holds what no argument can (a NUL character).
        """
        try:
            filled = ["".join(p if isinstance(p, str) else p(task) for p in parts) for parts in self._arguments]
        except ValueError as problem:
            raise Reject(f"the task's value cannot be read: {problem}") from problem
        for argument in filled:
            if "\0" in argument:
                raise Reject("the task holds a NUL character, which no program takes as an argument")
        return filled


def _parse(argument: str) -> list[_Part]:
    parts: list[_Part] = []
    position = 0
    for token in _TOKEN.finditer(argument):
        parts.append(argument[position : token.start()])
        position = token.end()
        text = token[0]
        if text in ("{{", "}}"):
            parts.append(text[0])
        elif text in ("{", "}"):
            raise SettingsError(f"a lone {text!r} in {argument!r}; a literal brace is written twice: {text * 2}")
        else:
            parts.append(_placeholder(token[1], argument))
    parts.append(argument[position:])
    return parts


def _placeholder(name: str, argument: str) -> Callable[[Task], str]:
    kind, colon, key = name.partition(":")
    if not colon and name in _PLAIN:
        return _PLAIN[name]
    if key and kind == "param":
        return lambda task: _param(task, key)
    if key and kind == "meta":
        return lambda task: _meta(task, key)
    known = [*_PLAIN, *(f"{kind}:NAME" for kind in _NAMED)]
    raise SettingsError(
        f"{argument!r}: there is no placeholder {{{name}}} (a literal brace is written twice: {{{{{name}}}}})"
        f"{nearest(name, known)}"
    )


def _param(task: Task, key: str) -> str:
    # As in a parameters class, - and _ are alike.
    wanted = key.replace("_", "-")
    texts = [text for name, text in URI.split(task.value).parameters() if name.replace("_", "-") == wanted]
    if len(texts) != 1:
        raise Reject(f"the task's value must have one parameter {key!r}; it has {len(texts) or 'none'}")
    return unescape_query(texts[0])


def _meta(task: Task, key: str) -> str:
    if key not in task.meta:
        raise Reject(f"the task's meta has no {key!r}")
    return task.meta[key]
