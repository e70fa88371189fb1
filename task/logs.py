"""Logs: lines for people or JSON for machines, on stderr, with structured fields and no secrets."""

from __future__ import annotations

import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

import orjson

from task.times import format_time

__all__ = ["setup_logs"]

#: Attributes every log record has; whatever else it carries was given as ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def setup_logs(level: str = "info", style: str = "auto") -> None:
    """Send the ``taskbus`` loggers to stderr. ``auto`` writes text to a terminal and JSON elsewhere."""
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    logger = logging.getLogger("taskbus")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and value is not None}


def _masked(text: str) -> str:
    return _PASSWORD.sub(r"\1***@", text)


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": format_time(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _masked(record.getMessage()),
        }
        for key, value in _fields(record).items():
            line.setdefault(key, _masked(value) if isinstance(value, str) else value)
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _masked(_exception(record))
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except orjson.JSONEncodeError:
            plain = {key: str(value).encode("utf-8", "replace").decode() for key, value in line.items()}
            return orjson.dumps(plain).decode()


class _Text(logging.Formatter):
    """``12:04:05 INFO    message  key=value``; nothing in it can begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {key}={_shown(value)}" for key, value in _fields(record).items() if key != "event")
        text = f"{clock} {record.levelname:<7} {_oneline(record.getMessage())}{' ' if fields else ''}{fields}"
        if record.exc_info and record.exc_info[1] is not None and record.exc_info[1] is not record.msg:
            text += f"  {_oneline(_exception(record))}"
            if logging.getLogger("taskbus").isEnabledFor(logging.DEBUG):
                text += "\n" + self.formatException(record.exc_info)
        return _masked(text).encode("utf-8", "replace").decode()


def _exception(record: logging.LogRecord) -> str:
    problem = record.exc_info[1] if record.exc_info else None
    return f"{type(problem).__name__}: {problem}"


def _shown(value: object) -> str:
    text = _oneline(str(value))
    return f'"{text}"' if " " in text or not text else text


def _oneline(text: str) -> str:
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)
