"""Settings from flags, environment, a file and defaults, in this order of precedence, each with its source.

They are declared as :mod:`task.setting` says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from bus import BusURLError, parse_url
from bus.units import format_duration
from bus.url import nearest
from task.document import Document, load_document
from task.errors import SettingsError
from task.logs import redact

__all__ = ["Resolved", "click_options", "example", "resolve", "show"]

_log = logging.getLogger("taskbus.settings")
Settings = TypeVar("Settings")
Command = TypeVar("Command", bound=Callable[..., Any])
Field = dataclasses.Field[Any]

_PREFIX, _FROM_FILE = "TASKBUS_", "_FILE"
#: The variable that names the configuration file.
_CONFIG = "TASKBUS_CONFIG"
#: How alike an unknown variable must be to a known one to be taken for a slip. Other applications have other ones.
_ALIKE = 0.75
#: Bytes of the largest value read from a file.
_MAX_VALUE = 64 * 1024
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")


@dataclasses.dataclass(frozen=True, slots=True)
class Resolved(Generic[Settings]):
    """The settings and, by field name, where each came from: ``--flag``, a variable, ``file:line`` or ``default``."""

    settings: Settings
    sources: Mapping[str, str]


def resolve(
    cls: type[Settings],
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> Resolved[Settings]:
    """Build ``cls``. A flag that is None was not given. ``config``, or else TASKBUS_CONFIG, names a file.

    A value is wrong even where a source of higher precedence covers it.

    Raises:
        SettingsError: with every mistake: its place, what is accepted, the nearest key. No secret is shown.
    """
    reading = _Reading({_key(field): field for field in dataclasses.fields(cls)})  # type: ignore[arg-type]
    environ = os.environ if environ is None else environ
    config = config or environ.get(_CONFIG)
    if config:
        reading.file(load_document(config))
    reading.environment(environ)
    reading.flags(flags or {})
    if len(reading.mistakes) > 1:
        raise SettingsError("\n".join([f"{len(reading.mistakes)} mistakes:", *reading.mistakes]))
    if reading.mistakes:
        raise SettingsError(reading.mistakes[0])
    return Resolved(cls(**reading.values), {**dict.fromkeys(reading.names(), "default"), **reading.sources})


class _Reading:
    """What the sources say, the later one winning, and the mistakes in them."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.mistakes: list[str] = []

    def names(self) -> list[str]:
        return [field.name for field in self._fields.values()]

    def file(self, document: Document) -> None:
        for key, value in document.data.items():
            try:
                field = self._fields.get(key)
                if field is None:
                    raise ValueError(f"there is no such setting{nearest(key.replace('-', '_'), list(self._fields))}")
                self._take(field, value, f"{document.path}:{document.line((key,))}")
            except ValueError as error:
                self.mistakes.append(str(document.error((key,), str(error))))

    def environment(self, environ: Mapping[str, str]) -> None:
        known = {_PREFIX + key.upper(): field for key, field in self._fields.items()}
        # A setting whose own name ends in _FILE wins over the file variant of another.
        files = {name + _FROM_FILE: field for name, field in known.items() if name + _FROM_FILE not in known}
        for name, text in environ.items():
            if not name.startswith(_PREFIX) or not text or name == _CONFIG:
                continue
            try:
                if name in known:
                    self._take(known[name], text, name)
                elif name in files:
                    if environ.get(name.removesuffix(_FROM_FILE)):
                        raise ValueError(f"{name.removesuffix(_FROM_FILE)} is set as well; set one of the two")
                    self._take(files[name], _content(text), name)
                else:
                    _warn_if_alike(name.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in known])
            except ValueError as error:
                self.mistakes.append(f"{name}: {error}")

    def flags(self, flags: Mapping[str, object]) -> None:
        for field in self._fields.values():
            value = flags.get(field.name)
            if value is not None:
                try:
                    self._take(field, value, _flag(field))
                except ValueError as error:
                    self.mistakes.append(f"{_flag(field)}: {error}")

    def _take(self, field: Field, value: object, source: str) -> None:
        self.values[field.name] = _read(field, value)
        self.sources[field.name] = source


def _warn_if_alike(name: str, known: list[str]) -> None:
    for close in difflib.get_close_matches(name, known, 1, _ALIKE):
        # Before the logs are set up this goes to stderr as it is.
        _log.warning(
            "%s is no setting and is ignored; did you mean %s?",
            _PREFIX + name,
            _PREFIX + close,
            extra={"event": "unknown-variable"},
        )


def _read(field: Field, value: object) -> Any:
    """One value, as text or as a configuration file or a program has it. Raises ValueError, without a secret in it."""
    try:
        found = _bool(value) if isinstance(field.default, bool) else _value(field, value)
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError("it is too large")
        return found
    except (ValueError, OverflowError) as error:
        raise ValueError("this value is not accepted" if field.metadata["secret"] else redact(str(error))) from None


def _bool(value: object) -> bool:
    found = value if isinstance(value, bool) else _WORDS.get(str(value).lower())
    if found is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return found


def _value(field: Field, value: object) -> Any:
    read = field.metadata["read"]
    if value is None:
        raise ValueError('it has no value; write one, or "" for none')
    if value == "" and field.default is None:
        return None
    if isinstance(value, str):
        return read(value) if read else value
    if read and isinstance(value, (int, float)) and not isinstance(value, bool):
        return read(str(value))
    if isinstance(value, (dict, list)):
        raise ValueError("it must be a single value")
    raise ValueError(f"{value} is not text; write it in quotes")


def _content(path: str) -> str:
    """The text of a file that holds one value, without the newline at its end. Raises ValueError."""
    try:
        with open(path, "rb") as file:
            body = file.read(_MAX_VALUE + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(body) > _MAX_VALUE:
        raise ValueError(f"{path} is longer than {_MAX_VALUE} bytes")
    try:
        return body.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None


def click_options(cls: type[Any]) -> Callable[[Command], Command]:
    """A decorator that gives a click command a flag for each setting, ``--config`` and two that print and exit.

    The command receives ``config`` and every flag by its field name, None where it was not given.
    """
    import click

    def print_example(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            click.echo(example(cls), nl=False)
            context.exit()

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def showing(*args: Any, show_config: bool, **kwargs: Any) -> Any:
            if not show_config:
                return command(*args, **kwargs)
            click.echo(show(resolve(cls, kwargs, config=kwargs["config"])), nl=False)
            return None

        options = [
            *(_click_option(field) for field in dataclasses.fields(cls)),
            click.option(
                "--config",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Read settings from a TOML or YAML file.",
            ),
            click.option(
                "--show-config", is_flag=True, help="Print the settings in force and their sources, and exit."
            ),
            click.option(
                "--example-config",
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=print_example,
                help="Print a commented configuration file, and exit.",
            ),
        ]
        decorated: Any = showing
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _click_option(field: Field) -> Callable[[Any], Any]:
    import click

    help, choices = field.metadata["help"], field.metadata["choices"]
    if isinstance(field.default, bool):
        flag = _flag(field)
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=help)
    if field.default is not None:
        help += f"  [default: {_written(field.default, field)}]"
    metavar = field.metadata["metavar"] or ("|".join(choices) if choices else None)
    return click.option(_flag(field), field.name, metavar=metavar, help=help)


def show(resolved: Resolved[Any]) -> str:
    """The settings in force as TOML, each with its source; secrets and passwords in URLs are masked."""
    lines = []
    for field in dataclasses.fields(resolved.settings):
        value = getattr(resolved.settings, field.name)
        source = _toml_text(resolved.sources[field.name])[1:-1]
        lines.append(f"{_key(field)} = {_toml(_masked(value, field), field)}  # {source}\n")
    return "".join(lines)


def example(cls: type[Any]) -> str:
    """A TOML file with every setting at its default, explained, and commented out."""
    blocks = ['# To change a setting, take away the # before its name. "" stands for none.\n']
    for field in dataclasses.fields(cls):
        choices = field.metadata["choices"]
        accepted = f" One of {', '.join(choices)}." if choices else ""
        blocks.append(f"# {field.metadata['help']}{accepted}\n#{_key(field)} = {_toml(field.default, field)}\n")
    return "\n".join(blocks)


def _key(field: Field) -> str:
    return field.name.rstrip("_")


def _flag(field: Field) -> str:
    return "--" + _key(field).replace("_", "-")


def _masked(value: object, field: Field) -> object:
    if field.metadata["secret"] and value is not None:
        return "***"
    if isinstance(value, str) and _SCHEME.match(value):
        try:
            shown = str(parse_url(value))
        except BusURLError:
            return value.partition(":")[0] + ":***"
        # What has nothing to hide is shown as it was written.
        return shown if "***" in shown else value
    return value


def _toml(value: object, field: Field) -> str:
    """A value as a configuration file has it; the empty text is how it says None."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return _toml_text("" if value is None else _written(value, field))


def _toml_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = re.sub(r"[\ud800-\udfff]", "\ufffd", escaped)
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'


def _written(value: object, field: Field) -> str:
    """A value as text that reads back as the same: a float, where its reader takes that, as a duration."""
    if isinstance(value, float):
        text = format_duration(value)
        with contextlib.suppress(ValueError):
            if (field.metadata["read"] or str)(text) == value:
                return text
    return str(value)
