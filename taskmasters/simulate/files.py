"""Which taskmaster a rule file is for: found by what stands in it, or told as ``cron=FILE``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from bus.url import nearest
from task.document import Document, load_document
from task.errors import SettingsError
from taskmasters.workflow.load import files_in

__all__ = ["For", "RuleFiles", "find_files"]


class For(StrEnum):
    """The taskmasters whose files can be simulated."""

    CRON = "cron"
    ON_DONE = "on-done"
    WORKFLOW = "workflow"
    RETRY = "retry"


#: What is no taskmaster that can be simulated, though it has files: why not.
_OTHERS: Mapping[str, str] = {
    "files": "it makes tasks when files arrive, which a simulation knows nothing of",
    "alerts": "it makes no tasks",
    "results": "it says what tasks come to: give it with --results",
    "delay": "it has no rules, and is always at work in a simulation",
    "batch": "it has no rules; simulate the cron rules it takes",
}
#: Of each kind of rule, keys one of each of which it must have.
_KEYS: Mapping[str, Sequence[Sequence[str]]] = {
    "cron": (("cron",), ("type",)),
    "on-done": (("match", "all"), ("type",)),
    "retry": (("match",), ("retries",)),
    "files": (("path",), ("type",)),
    "results": (("match",), ("result", "duration", "share", "attempts", "msg")),
}
#: What stands at the top of a file of workflows, and of one of alerts.
_WORKFLOW = ("job", "step", "start")
_ALERTS = ("channel", "deadline")


class RuleFiles(NamedTuple):
    """The files of each kind, in the order they were given."""

    cron: list[str]
    on_done: list[str]
    retry: list[str]
    workflow: list[str]


def find_files(given: Iterable[str]) -> RuleFiles:
    """The files that these texts name: a path, a folder, or either behind ``cron=``, ``on-done=`` and so on.

    Raises:
        SettingsError: naming every file of which it cannot be told what it is for.
    """
    found: dict[str, list[str]] = {kind: [] for kind in For}
    wrong: list[str] = []
    for text in given:
        try:
            kind, path = _split(text)
            for name in files_in(path):
                try:
                    found[kind or _recognised(load_document(name))].append(name)
                except SettingsError as error:
                    wrong.append(str(error))
        except SettingsError as error:
            wrong.append(str(error))
    if wrong:
        raise SettingsError("\n".join([f"{len(wrong)} mistakes:", *wrong]) if len(wrong) > 1 else wrong[0])
    return RuleFiles(*(list(dict.fromkeys(found[kind])) for kind in (For.CRON, For.ON_DONE, For.RETRY, For.WORKFLOW)))


def _split(text: str) -> tuple[For | None, str]:
    word, equals, path = text.partition("=")
    if not equals or os.path.exists(text):
        return None, text
    if word in set(For):
        return For(word), path
    if word in _OTHERS:
        raise SettingsError(f"{text}: {word} cannot be simulated: {_OTHERS[word]}")
    raise SettingsError(f"{text}: there is no taskmaster {word!r}{nearest(word, list(map(str, For)))}")


def _recognised(document: Document) -> For:
    """The taskmaster the file is for.

    Raises:
        SettingsError: if that is not certain.
    """
    kinds = _kinds(document)
    if len(kinds) > 1:
        (first, _), (second, place) = list(kinds.items())[:2]
        raise document.error(place, f"is a rule of {second}, and one before it is of {first}: give each a file")
    kind = next(iter(kinds), None)
    if kind is None:
        raise _unknown(document)
    if kind in _OTHERS:
        raise SettingsError(f"{document.path}: is a file of {kind}, which cannot be simulated: {_OTHERS[kind]}")
    return For(kind)


def _kinds(document: Document) -> dict[str, tuple[str | int, ...]]:
    """Each kind of which something is in the file, with the first place."""
    data = document.data
    for kind, keys in ((str(For.WORKFLOW), _WORKFLOW), ("alerts", _ALERTS)):
        for key in keys:
            if key in data and "rule" not in data:
                return {kind: (key,)}
    if any(key in data for key in _ALERTS):
        return {"alerts": ()}
    found: dict[str, tuple[str | int, ...]] = {}
    for key in _WORKFLOW:
        if key in data:
            found[For.WORKFLOW] = (key,)
    for number, rule in _rules(data):
        fitting = [kind for kind, wanted in _KEYS.items() if all(any(key in rule for key in some) for some in wanted)]
        # A rule of on-done may have what a result has, and one of files a cron condition: the first that fits counts.
        for kind in _strongest(fitting):
            found.setdefault(kind, ("rule", number))
    return found


def _strongest(fitting: list[str]) -> list[str]:
    if "files" in fitting:
        return ["files"]
    if len(fitting) > 1 and "results" in fitting:
        return [kind for kind in fitting if kind != "results"]
    return fitting


def _rules(data: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    rules = data.get("rule")
    return [(n, rule) for n, rule in enumerate(rules) if isinstance(rule, dict)] if isinstance(rules, list) else []


def _unknown(document: Document) -> SettingsError:
    how = f"; to have it read as one, write cron={document.path}, on-done=…, retry=… or workflow=…"
    rules = _rules(document.data)
    if not rules:
        known = ["rule", *_WORKFLOW]
        for key in document.data:
            if key not in known:
                return document.error((key,), f"is in no file that can be simulated{nearest(key, known)}{how}")
        return document.error((), f"there is no [[rule]], [[job]] or [[step]] in it{how}")
    wanted = ["cron", "match", "all", "type", "retries"]
    number, first = rules[0]
    for key in first:
        hint = nearest(key, wanted)
        if key not in wanted and "did you mean" in hint:
            return document.error(("rule", number, key), f"unknown key{hint}{how}")
    says = "cron rules have cron and type, rules of on-done match (or all) and type, of retry match and retries"
    return document.error(("rule", number), f"it cannot be told which taskmaster it is for: {says}{how}")
