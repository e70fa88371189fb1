"""Configuration and rule files: TOML or YAML, read whole or not at all, with the line of every key for errors."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from task.errors import SettingsError
from task.locate import Place, toml_lines, yaml_lines

__all__ = ["Document", "load_document"]

#: Bytes of the largest file read.
_MAX_SIZE = 1024 * 1024
_FORMATS = {".toml": "TOML", ".yaml": "YAML", ".yml": "YAML"}


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its ``data``, and where in it each key stands."""

    path: Path
    data: dict[str, Any]
    _lines: dict[Place, int] = field(repr=False, default_factory=dict)

    def line(self, place: Place) -> int | None:
        """The line (from 1) of ``place``, such as ``("rule", 0, "cron")``, or of the nearest thing that holds it."""
        while place:
            if place in self._lines:
                return self._lines[place]
            place = place[:-1]
        return None

    def error(self, place: Place, message: str) -> SettingsError:
        """``rules.toml:12: rule[0].cron: message``, to be raised."""
        line = self.line(place)
        at = f"{self.path}:{line}" if line else str(self.path)
        return SettingsError(f"{at}: {_dotted(place)}: {message}" if place else f"{at}: {message}")


def load_document(path: str | os.PathLike[str]) -> Document:
    """Read a TOML (``.toml``) or YAML (``.yaml``, ``.yml``) file.

    Raises:
        SettingsError: if it cannot be read or is not well formed; the text gives file and line.
    """
    path = Path(path)
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise SettingsError(f"{path}: a configuration file is named .toml, .yaml or .yml")
    text = _read(path)
    data, lines = _parse_toml(path, text) if form == "TOML" else _parse_yaml(path, text)
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: it must hold keys with values, not {type(data).__name__}")
    return Document(path, data, lines)


def _read(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > _MAX_SIZE:
            raise SettingsError(f"{path}: {size} bytes are more than a configuration file may have ({_MAX_SIZE})")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 (byte {error.start})") from None
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None


def _parse_toml(path: Path, text: str) -> tuple[Any, dict[Place, int]]:
    try:
        return tomllib.loads(text), toml_lines(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: nested too deeply") from None


def _parse_yaml(path: Path, text: str) -> tuple[Any, dict[Place, int]]:
    import yaml

    try:
        lines = yaml_lines(text)
        return yaml.safe_load(text) or {}, lines
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError(f"{path}{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: nested too deeply") from None


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
