"""Rule files: TOML or YAML with a list of ``[[rule]]`` tables, read so that all mistakes are told at once.

Nothing of a file with a mistake is used. Each mistake is told with its file, line and key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, TypeVar

from bus import BadNameError, check_topic
from bus.units import parse_duration
from bus.url import nearest
from task.collector import collector_paused
from task.document import Document, load_document
from task.errors import SettingsError
from taskmasters.templates import Template

__all__ = ["Place", "Problems", "RuleTable", "load_rules", "no_word"]

#: Where something stands in a document: keys of tables and numbers of list items, outermost first.
Place = tuple[str | int, ...]

#: Seconds of the longest duration a rule may have: ten years.
_LONGEST = 3660 * 86400.0


class _Rule(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def place(self) -> Place: ...


Rule = TypeVar("Rule", bound=_Rule)
Value = TypeVar("Value")


class Problems:
    """The mistakes found in one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: list[tuple[int, str]] = []

    def add(self, place: Place, message: str) -> None:
        """Tell that something is wrong at ``place``."""
        self._found.append((self._document.line(place) or 0, str(self._document.error(place, message))))

    def check(self, *others: Problems) -> None:
        """Raise SettingsError with every mistake, one a line, if there is any, here or in other documents."""
        told = [text for problems in (self, *others) for text in problems.told()]
        if len(told) > 1:
            raise SettingsError("\n".join([f"{len(told)} mistakes:", *told]))
        if told:
            raise SettingsError(told[0])

    def told(self) -> list[str]:
        """Every mistake, in order of lines."""
        return [text for _, text in sorted(self._found, key=lambda found: found[0])]

    def __len__(self) -> int:
        return len(self._found)


class RuleTable:
    """One table being read. A getter that finds a mistake notes it and returns the default, so that reading goes on."""

    def __init__(self, data: Mapping[str, Any], place: Place, problems: Problems) -> None:
        self._data = data
        self._problems = problems
        self._known: set[str] = set()
        self.place = place

    @property
    def data(self) -> Mapping[str, Any]:
        """All it says, as it was read."""
        return self._data

    def __contains__(self, key: str) -> bool:
        # Who asks for it knows it: it is among those that a misspelt one is compared with.
        self._known.add(key)
        return key in self._data

    def wrong(self, key: str, message: str) -> None:
        """Tell that the value of ``key`` is wrong."""
        self._problems.add((*self.place, key), message)

    def text(self, key: str, default: str | None = None) -> str | None:
        """A text that is not empty."""
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value:
            self.wrong(key, f"must be a text, not {_kind(value)}" if value != "" else "must not be empty")
            return default
        return value

    def missing(self, key: str, what: str = "") -> None:
        """Tell that ``key`` is not there; ``what`` says what it is for."""
        self._problems.add(self.place, f"the rule has no {key!r}{f': {what}' if what else ''}")

    def required(self, key: str) -> str:
        """A text that must be there. Empty, with the mistake noted, if it is not."""
        if key not in self._data:
            self._known.add(key)
            self.missing(key)
            return ""
        return self.text(key) or ""

    def topic(self, kind: str) -> str:
        """The topic of tasks of this kind: ``topic``, else the kind itself."""
        given = self.text("topic")
        try:
            return check_topic(given or kind) if given or kind else ""
        except BadNameError as error:
            self.wrong("topic" if given else "type", str(error))
            return ""

    def read(self, key: str, read: Callable[[str], Value], default: Value) -> Value:
        """A text read by ``read``, which raises ValueError."""
        text = self.text(key)
        return default if text is None else self._read(key, text, read, default)

    def value(self, key: str, read: Callable[[object], Value], default: Value) -> Value:
        """A value of any kind read by ``read``, which raises ValueError."""
        value = self._take(key)
        return default if value is None else self._read(key, value, read, default)

    def duration(self, key: str, default: float, *, negative: bool = False) -> float:
        """Seconds, given as a number or a text such as ``1h30m``."""
        value = self._data.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self._known.add(key)
            try:
                seconds = float(value)
            except OverflowError:
                seconds = float("inf") if value > 0 else float("-inf")
        else:
            seconds = self.read(key, parse_duration, default)
        if seconds < 0 and not negative:
            self.wrong(key, "must not be negative")
        elif not abs(seconds) <= _LONGEST:
            self.wrong(key, "must be less than ten years")
        else:
            return seconds
        return default

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(key, f"must be true or false, not {_kind(value)}")
            return default
        return value

    def number(self, key: str, least: int) -> int | None:
        """A whole number."""
        value = self._take(key)
        if value is None:
            return None
        if type(value) is not int or value < least:
            self.wrong(key, f"must be a whole number of at least {least}")
            return None
        return value

    def texts(self, key: str, *, empty: bool = False) -> tuple[str, ...] | None:
        """One text or a list of texts, which may be empty if so said."""
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and (value or empty) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self.wrong(key, f"must be a text or a list of texts, not {_kind(value)}")
        return None

    def table(self, key: str) -> RuleTable:
        """A table in this one; an empty one if it is not there."""
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            self.wrong(key, f"must be a table of keys and values, not {_kind(value)}")
            value = None
        return RuleTable(value or {}, (*self.place, key), self._problems)

    def tables(self, key: str) -> list[RuleTable]:
        """A list of tables; an empty one if it is not there."""
        value = self._take(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.wrong(key, f"must be a list of tables: begin each with [[{key}]] (in YAML, `{key}:` and a list)")
            return []
        return [RuleTable(item, (*self.place, key, number), self._problems) for number, item in enumerate(value)]

    def is_table(self, key: str) -> bool:
        """Whether a table is there under that key."""
        return isinstance(self._data.get(key), dict)

    def word(self, key: str, words: Collection[str], default: str) -> str:
        """One of a few words."""

        def read(text: str) -> str:
            if text not in words:
                raise ValueError(no_word(text, words))
            return text

        return self.read(key, read, default)

    def template(self, key: str, tokens: Collection[str], default: str = "", *, uri: bool = False) -> Template:
        """A text with placeholders. ``uri``: one that begins with a path is a URI."""
        value = self._data.get(key)
        self._known.add(key)
        if value is not None and not isinstance(value, str):
            self.wrong(key, f"must be a text, not {_kind(value)}")
            value = None
        try:
            return Template(default if value is None else value, tokens, value=uri)
        except ValueError as error:
            self.wrong(key, str(error))
            return Template("", ())

    def templates(self, tokens: Collection[str]) -> dict[str, Template]:
        """Every value of this table as a template."""
        return {key: self.template(key, tokens) for key in self._data}

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def finish(self) -> None:
        """Tell of every key nothing asked for."""
        for key in self._data:
            if key not in self._known:
                self.wrong(key, f"unknown key{nearest(key, sorted(self._known))}")

    def _read(self, key: str, given: Any, read: Callable[[Any], Value], default: Value) -> Value:
        try:
            return read(given)
        except ValueError as error:
            self.wrong(key, str(error))
            return default

    def _take(self, key: str) -> Any:
        self._known.add(key)
        return self._data.get(key)


def no_word(text: str, words: Collection[str]) -> str:
    """Tells that ``text`` is none of a few words, and which is nearest."""
    close = get_close_matches(text, [str(word) for word in words], 1, 0.6)
    return f"{text!r} is none of {', '.join(words)}{f'; did you mean {close[0]!r}?' if close else ''}"


def load_rules(
    path: str,
    read: Callable[[RuleTable], Rule],
    check: Callable[[Sequence[Rule], Problems], None] = lambda rules, problems: None,
) -> list[Rule]:
    """The rules of a file. ``read`` reads one; ``check`` looks at all of them together, if each is right by itself.

    Raises:
        SettingsError: naming every mistake, or saying why the file cannot be read.
    """
    with collector_paused():
        document = load_document(path)
        problems = Problems(document)
        top = RuleTable(document.data, (), problems)
        rules = [rule for table in _tables(top, problems) if (rule := _read_one(table, read, problems))]
        top.finish()
        _check_ids(rules, problems)
        problems.check()
    check(rules, problems)
    problems.check()
    return rules


def _tables(top: RuleTable, problems: Problems) -> list[RuleTable]:
    found = top._take("rule")
    if found is None:
        problems.add((), "there is no [[rule]] in it")
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        problems.add(("rule",), "must be a list of rules: begin each with [[rule]] (in YAML, `rule:` and a list)")
        return []
    return [RuleTable(item, ("rule", number), problems) for number, item in enumerate(found)]


def _read_one(table: RuleTable, read: Callable[[RuleTable], Rule], problems: Problems) -> Rule | None:
    before = len(problems)
    rule = read(table)
    table.finish()
    return rule if len(problems) == before else None


def _check_ids(rules: Sequence[Rule], problems: Problems) -> None:
    seen: set[str] = set()
    for rule in rules:
        if rule.id in seen:
            problems.add(rule.place, f"a rule before it is called {rule.id!r} too: give each an id of its own")
        seen.add(rule.id)


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "a table", list: "a list", bool: "true or false", str: "a text"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")
