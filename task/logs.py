"""Logs on stderr: lines for people or JSON for machines, with structured fields, without passwords.

Loggers are the standard ones below ``taskbus``; fields are what a call passes as ``extra``. Nothing outside
``taskbus`` is configured.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from task.times import format_time

__all__ = ["process_number", "redact", "setup_logs", "show_footer"]

#: Attributes every log record has; whatever else it carries was given as ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: ``://user:password@``. A password may hold anything but what ends the authority part of a URL.
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s]*@")
#: What could begin a line, move the cursor or turn the writing direction, and what is no character at all.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
#: A value of these only needs no quotes.
_BARE = re.compile(r"[^\s\"'=\\]+")
#: Levels of lists and mappings within a field that are kept as such.
_DEPTH = 4
_CLEAR = "\r\033[K"
#: Which of the processes of a parent this one is, if it is one (``--processes``).
_process: int | None = None


def setup_logs(level: str = "info", style: str = "auto", process: int | None = None) -> None:
    """Send the ``taskbus`` loggers to stderr, from ``level`` on. ``auto`` writes text to a terminal, JSON elsewhere.

    ``process`` is a field of every line, for those who read the lines of several processes.
    """
    global _process
    _process = process
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    line = _json_line if style == "json" else _text_line
    logger = logging.getLogger("taskbus")
    logger.handlers[:] = [_Lines(sys.stderr, line, tracebacks=level == "debug")]
    logger.propagate = False
    logger.setLevel(level.upper())


def process_number() -> int | None:
    """What :func:`setup_logs` was given as ``process``."""
    return _process


def show_footer(text: str) -> None:
    """Keep ``text`` in the last line of the terminal on stderr, below the log lines; an empty text takes it away."""
    for handler in logging.getLogger("taskbus").handlers:
        if isinstance(handler, _Lines):
            handler.show_footer(text)


def redact(text: str) -> str:
    """``text`` with the password of every ``scheme://user:password@host`` in it masked."""
    return _PASSWORD.sub(r"\1***@", text) if "://" in text else text


class _Lines(logging.Handler):
    """Writes each record as one line, above the footer if there is one."""

    def __init__(self, stream: TextIO, line: Callable[[logging.LogRecord, bool], str], *, tracebacks: bool) -> None:
        super().__init__()
        self._stream = stream
        self._line = line
        self._tracebacks = tracebacks
        self._footer = ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self._line(record, self._tracebacks) + "\n"
            self._stream.write(f"{_CLEAR}{text}{self._footer}" if self._footer else text)
            self._stream.flush()
        except Exception:  # arguments that do not fit the message, a field whose __str__ raises, a closed stderr
            self.handleError(record)

    def show_footer(self, text: str) -> None:
        self.acquire()
        try:
            if text != self._footer:
                self._footer = text
                # A terminal that has gone away is no reason to stop working.
                with contextlib.suppress(OSError, ValueError):
                    self._stream.write(_CLEAR + text)
                    self._stream.flush()
        finally:
            self.release()


def _json_line(record: logging.LogRecord, tracebacks: bool) -> str:
    line: dict[str, Any] = {
        "time": format_time(datetime.fromtimestamp(record.created, UTC)),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _plain(record.getMessage()),
    }
    for key, value in _fields(record, tracebacks):
        line[key + "_" if key in line else key] = _plain(value)
    return _escape(orjson.dumps(line).decode())


def _text_line(record: logging.LogRecord, tracebacks: bool) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(record.created))
    line = f"{clock} {record.levelname:<7} {record.name}  {redact(record.getMessage())}"
    below, between = "", "  "
    for key, value in _fields(record, tracebacks):
        if key == "traceback":
            # Set in, so that no line of it can pass for a log line.
            below = "".join(f"\n    {_escape(redact(part))}" for part in str(value).split("\n"))
        elif key != "event":  # the message says the same to a person
            line += f"{between}{key}={_shown(_plain(value))}"
            between = " "
    return _escape(line) + below


def _fields(record: logging.LogRecord, tracebacks: bool) -> Iterator[tuple[str, object]]:
    if _process is not None:
        yield "process", _process
    for key, value in vars(record).items():
        if key not in _STANDARD and value is not None:
            # A record has a ``process`` of its own, so that it cannot be given as extra.
            yield "process" if key == "process_" else key, value
    problem = record.exc_info[1] if record.exc_info else None
    if problem is not None:
        yield "exception", f"{type(problem).__name__}: {problem}".removesuffix(": ")
        if tracebacks:
            yield "traceback", "".join(traceback.format_exception(problem)).rstrip("\n")


def _plain(value: object, depth: int = _DEPTH) -> Any:
    """``value`` as JSON has it, without passwords."""
    if isinstance(value, (bool, float)) or value is None:
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    if isinstance(value, Mapping) and depth:
        return {_plain(str(key)): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and depth:
        return [_plain(item, depth - 1) for item in value]
    return _SURROGATE.sub("\ufffd", redact(str(value)))


def _shown(value: object) -> str:
    """``value`` for a person: as JSON, but a plain word without quotes."""
    return value if isinstance(value, str) and _BARE.fullmatch(value) else orjson.dumps(value).decode()


def _escape(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)
