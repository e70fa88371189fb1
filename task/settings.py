"""Settings from flags, environment, a file and defaults, in this order of precedence, each with its source."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from bus import BusURLError, parse_url
from bus.units import format_duration
from bus.url import nearest
from task.document import Document, load_document
from task.errors import SettingsError

__all__ = ["Resolved", "click_options", "example", "resolve", "show"]

_log = logging.getLogger("taskbus.settings")
Settings = TypeVar("Settings")
Command = TypeVar("Command", bound=Callable[..., Any])
_PREFIX = "TASKBUS_"
#: Variables of this prefix that are no settings.
_OTHERS = {"TASKBUS_CONFIG"}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


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
    config: Path | None = None,
) -> Resolved[Settings]:
    """Build ``cls``. A flag that is None was not given. ``config``, or TASKBUS_CONFIG, names a TOML or YAML file.

    Raises:
        SettingsError: naming the place, the key, what is accepted and the nearest key.
    """
    environ = os.environ if environ is None else environ
    if config is None and environ.get("TASKBUS_CONFIG"):
        config = Path(environ["TASKBUS_CONFIG"])
    fields = {_key(field): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if config is not None:
        _from_file(load_document(config), fields, values, sources)
    _from_environment(environ, fields, values, sources)
    for key, field in fields.items():
        given = (flags or {}).get(field.name)
        if given is not None:
            values[field.name] = _read(field, given, f"--{key.replace('_', '-')}")
            sources[field.name] = f"--{key.replace('_', '-')}"
        sources.setdefault(field.name, "default")
    return Resolved(cls(**values), sources)


def _from_file(
    document: Document, fields: dict[str, dataclasses.Field[Any]], values: dict[str, Any], sources: dict[str, str]
) -> None:
    for key, value in document.data.items():
        field = fields.get(str(key).replace("-", "_"))
        if field is None:
            raise document.error((key,), f"no such setting{nearest(str(key).replace('-', '_'), list(fields))}")
        try:
            values[field.name] = _read(field, value, key)
        except SettingsError as error:
            raise document.error((key,), str(error).partition(": ")[2]) from None
        sources[field.name] = f"{document.path}:{document.line((key,))}"


def _from_environment(
    environ: Mapping[str, str],
    fields: dict[str, dataclasses.Field[Any]],
    values: dict[str, Any],
    sources: dict[str, str],
) -> None:
    known = {_PREFIX + key.upper(): field for key, field in fields.items()}
    for name, text in environ.items():
        if not name.startswith(_PREFIX) or name in _OTHERS:
            continue
        field = known.get(name)
        if field is None and name.endswith("_FILE"):
            field = known.get(name.removesuffix("_FILE"))
            content = _file_content(name, text) if field is not None else ""
        else:
            content = text
        if field is not None:
            values[field.name] = _read(field, content, name)
            sources[field.name] = name


def _file_content(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}: cannot read {path}: {error}") from None


def _read(field: dataclasses.Field[Any], value: object, place: str) -> Any:
    """One value from its text, or as a configuration file or program gave it."""
    read = field.metadata.get("read")
    secret = field.metadata.get("secret")
    try:
        if isinstance(field.default, bool):
            return _read_bool(value)
        if isinstance(value, (bool, list, dict)) or value is None:
            raise ValueError(f"{value!r} is not a single value")
        if read is not None:
            return read(str(value))
        return str(value)
    except ValueError as error:
        raise SettingsError(f"{place}: {'not acceptable' if secret else error}") from None


def _read_bool(value: object) -> bool:
    text = str(value).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def click_options(cls: type[Any]) -> Callable[[Command], Command]:
    """A decorator that gives a click command a flag for each setting, ``--config`` and two that print and exit.

    The command receives ``config`` and every flag by its field name, None where it was not given.
    """
    import click

    def show_and_exit(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            context.meta["taskbus.show"] = True

    def example_and_exit(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            click.echo(example(cls), nl=False)
            context.exit()

    def decorate(command: Command) -> Command:
        import functools

        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            context = click.get_current_context()
            if context.meta.get("taskbus.show"):
                flags = {field.name: kwargs.get(field.name) for field in dataclasses.fields(cls)}
                click.echo(show(resolve(cls, flags, config=kwargs.get("config"))), nl=False)
                context.exit()
            return command(*args, **kwargs)

        decorated: Any = wrapped
        hidden: dict[str, Any] = {"is_eager": True, "expose_value": False, "is_flag": True}
        decorated = click.option(
            "--example-config", callback=example_and_exit, help="Print a commented configuration file.", **hidden
        )(decorated)
        decorated = click.option(
            "--show-config", callback=show_and_exit, help="Print the settings in force, secrets masked.", **hidden
        )(decorated)
        decorated = click.option(
            "--config", type=click.Path(path_type=Path), help="Read settings from a TOML or YAML file."
        )(decorated)
        for field in reversed(dataclasses.fields(cls)):
            decorated = _click_option(field)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _click_option(field: dataclasses.Field[Any]) -> Callable[[Any], Any]:
    import click

    flag = _key(field).replace("_", "-")
    help = field.metadata["help"]
    if isinstance(field.default, bool):
        return click.option(f"--{flag}/--no-{flag}", field.name, default=None, help=help)
    if field.default is not None:
        help += f"  [default: {_written(field.default, field)}]"
    choices = field.metadata.get("choices")
    metavar = field.metadata.get("metavar") or ("|".join(choices) if choices else None)
    return click.option(f"--{flag}", field.name, default=None, metavar=metavar, help=help)


def show(resolved: Resolved[Any]) -> str:
    """The settings in force as TOML, each with its source; secrets and passwords in URLs are masked."""
    lines = []
    for field in dataclasses.fields(resolved.settings):
        value = getattr(resolved.settings, field.name)
        source = resolved.sources[field.name]
        if value is None:
            lines.append(f"# {_key(field)} is not set")
        else:
            lines.append(f"{_key(field)} = {_toml(_masked(value, field), field)}  # {source}")
    return "\n".join(lines) + "\n"


def example(cls: type[Any]) -> str:
    """A TOML file with every setting at its default, explained, and commented out."""
    blocks = []
    for field in dataclasses.fields(cls):
        default = field.default
        written = _toml(default, field) if default is not None else '""'
        blocks.append(f"# {field.metadata['help']}\n#{_key(field)} = {written}\n")
    return "\n".join(blocks)


def _key(field: dataclasses.Field[Any]) -> str:
    return field.name.rstrip("_")


def _masked(value: object, field: dataclasses.Field[Any]) -> object:
    if field.metadata.get("secret"):
        return "***"
    if isinstance(value, str) and field.metadata.get("metavar") in ("URL", "PATH|-|URL") and "://" in value:
        try:
            return str(parse_url(value))
        except BusURLError:
            return "***"
    return value


def _toml(value: object, field: dataclasses.Field[Any]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = _written(value, field)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _written(value: object, field: dataclasses.Field[Any]) -> str:
    return format_duration(value) if isinstance(value, float) else str(value)
