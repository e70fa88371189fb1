"""The rows of a CSV file with a header, or of a file of JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from task.errors import SettingsError

__all__ = ["read_rows"]

_JSON = (".jsonl", ".ndjson", ".json")


def read_rows(path: str) -> Iterator[Mapping[str, str]]:
    """Each row as texts by column. A number or a truth value of JSON becomes the text JSON has for it.

    Raises:
        SettingsError: naming file and line, if it cannot be read or a row is wrong.
    """
    ending = Path(path).suffix.lower()
    if ending not in (*_JSON, ".csv"):
        raise SettingsError(f"{path}: its name must end in .csv, or in .jsonl for one JSON object a line")
    try:
        with open(path, encoding="utf-8-sig", newline="" if ending == ".csv" else None) as lines:
            yield from _csv(path, lines) if ending == ".csv" else _json(path, lines)
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None


def _csv(path: str, lines: Iterator[str]) -> Iterator[Mapping[str, str]]:
    rows = csv.reader(lines, strict=True)
    try:
        header = next(rows, None)
        if not header:
            raise SettingsError(f"{path}: has no header: its first line must name the columns")
        if len(set(header)) < len(header):
            raise SettingsError(f"{path}:1: a column is named twice")
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise SettingsError(f"{path}:{rows.line_num}: has {len(row)} values for {len(header)} columns")
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise SettingsError(f"{path}:{rows.line_num}: {error}") from None


def _json(path: str, lines: Iterator[str]) -> Iterator[Mapping[str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{path}:{number}: is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise SettingsError(f"{path}:{number}: is not a JSON object")
        yield {key: _text(path, number, key, value) for key, value in row.items() if value is not None}


def _text(path: str, number: int, key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        raise SettingsError(f"{path}:{number}: {key!r} is a list or an object, not a value")
    return json.dumps(value)
