from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from unittest import mock

import pytest

from bus.secret import Secret
from task.logs import redact, setup_logs, show_footer
from task.times import parse_time

ROOT = Path(__file__).parents[2]
FORGED = "12:00:00 ERROR   taskbus.worker  all is lost"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    logger = logging.getLogger("taskbus")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate, level = before
    logger.setLevel(level)


def start(level: str = "info", style: str = "auto", stream: StringIO | None = None) -> StringIO:
    """Set the logs up with a stream in the place of stderr."""
    stream = StringIO() if stream is None else stream
    with mock.patch.object(sys, "stderr", stream):
        setup_logs(level, style)
    return stream


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("taskbus.worker")


def line(stream: StringIO) -> str:
    """The one line written."""
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    return text.removesuffix("\n")


def test_json_line(log: logging.Logger) -> None:
    """A machine gets time, level, logger, message and every field that has a value."""
    stderr = start("info", "json")
    before = time.time()
    log.info("did %s", "it", extra={"event": "task-done", "task_id": "a1", "attempt": 2, "reason": None})

    found = json.loads(line(stderr))
    assert abs(parse_time(found.pop("time")).timestamp() - before) < 5
    assert found == {
        "level": "info",
        "logger": "taskbus.worker",
        "message": "did it",
        "event": "task-done",
        "task_id": "a1",
        "attempt": 2,
    }


def test_text_line(log: logging.Logger) -> None:
    """A person gets local time, level, logger, message and fields, quoted where they need it."""
    stderr = start("info", "text")
    log.warning("did it", extra={"event": "task-done", "task_id": "a1", "msg_": 'two "words"', "n": 1, "none": None})
    clock, rest = line(stderr).split(" ", 1)

    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock)
    assert rest == r'WARNING taskbus.worker  did it  task_id=a1 msg_="two \"words\"" n=1'


def test_auto_asks_the_terminal(log: logging.Logger) -> None:
    """The automatic format is text on a terminal and JSON elsewhere."""
    written = []
    for stream in (Terminal(), StringIO()):
        start(stream=stream)
        log.info("x")
        written.append(stream.getvalue()[0])

    assert written[0].isdigit()
    assert written[1] == "{"


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_nothing_forges_a_line(log: logging.Logger, style: str, end: str) -> None:
    """Whatever a message, field, key or exception holds, one record is one line."""
    stderr = start("info", style)
    try:
        raise ValueError(f"a{end}{FORGED}")
    except ValueError:
        log.exception(f"a{end}{FORGED}", extra={"value": f"a{end}{FORGED}", f"k{end}{FORGED}": 1, "more": {end: [end]}})

    assert FORGED in line(stderr)


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("trick", ["\x1b[2J", "\x9b2J", "\x07", "\x00", "\x7f", "\u202e", "\u2066", "\ud800"])
def test_nothing_steers_the_terminal(log: logging.Logger, style: str, trick: str) -> None:
    """Control characters, those that turn the writing direction and lone surrogates are shown, not sent."""
    stderr = start("info", style)
    log.info("a%s", trick, extra={"value": f"b{trick}"})
    text = line(stderr)

    assert trick[0] not in text
    text.encode()


def test_traceback_at_debug_only(log: logging.Logger) -> None:
    """An exception is one field; only at level debug its traceback follows, set in so that it cannot pass for lines."""
    stderr = StringIO()
    for level in ("info", "debug"):
        start(level, "text", stderr)
        try:
            raise KeyError(f"x\n{FORGED}", "postgres://u:hunter2@h/")
        except KeyError:
            log.exception("failed")
    first, second, *rest = stderr.getvalue().splitlines()

    assert "Traceback" not in first
    assert first[9:] == second[9:]
    assert r'exception="KeyError: (' in first
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(part.startswith("    ") for part in rest)
    assert "hunter2" not in stderr.getvalue()


def test_traceback_as_a_json_field(log: logging.Logger) -> None:
    """At level debug JSON has the traceback as one more field."""
    stderr = start("debug", "json")
    try:
        raise ValueError
    except ValueError:
        log.exception("failed")
    found = json.loads(line(stderr))

    assert found["exception"] == "ValueError"
    assert found["traceback"].splitlines()[0] == "Traceback (most recent call last):"


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_password_is_written(log: logging.Logger, style: str) -> None:
    """Passwords in URLs are masked wherever they stand: message, arguments, fields within fields, keys, exceptions."""
    url = "amqp://me:hunter2@p@host/v"
    stderr = start("debug", style)
    try:
        raise OSError(f"cannot reach {url}")
    except OSError:
        log.exception(
            f"{url} %s",
            url,
            extra={"bus": url, "all": [url, {"deep": (url,), url: 1}], "error": OSError(url), "key": Secret("hunter2")},
        )

    assert "hunter2" not in stderr.getvalue()
    assert "@p@" not in stderr.getvalue()
    assert stderr.getvalue().count("amqp://me:***@host/v") >= 8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:pw@h", "redis://:***@h"),
        ("a://u:p@h b://v:q@i", "a://u:***@h b://v:***@i"),
        ("http://h:80/a@b", "http://h:80/a@b"),
        ("http://h/?q=a:b@c", "http://h/?q=a:b@c"),
        ("me@example.org: hello", "me@example.org: hello"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    """Only the password part of a URL is masked."""
    assert redact(text) == shown


def test_redact_is_quick() -> None:
    """A long text made to slow the search down does not."""
    began = time.process_time()
    redact("://" + "a:" * 500_000)
    redact("://a:" * 200_000)

    assert time.process_time() - began < 2


def test_odd_fields(log: logging.Logger) -> None:
    """Fields that JSON does not know are written as text, those named like the line's own get a mark."""
    stderr = start("info", "json")
    circle: list[object] = []
    circle.append(circle)
    log.info(
        "x", extra={"big": 1 << 80, "nan": float("nan"), "circle": circle, "level": "mine", "at": object, "b": b"\xff"}
    )
    found = json.loads(line(stderr))

    assert found["big"] == str(1 << 80)
    assert found["nan"] is None
    assert found["circle"] == [[[["[[...]]"]]]]
    assert (found["level"], found["level_"]) == ("info", "mine")
    assert (found["at"], found["b"]) == ("<class 'object'>", "b'\\xff'")


def test_levels(log: logging.Logger) -> None:
    """Lines below the level are not written, nor are their arguments looked at."""

    class Costly:
        def __str__(self) -> str:
            raise AssertionError("looked at")

    stderr = start("warning", "text")
    log.info("%s", Costly())
    assert stderr.getvalue() == ""

    log.warning("x")
    assert stderr.getvalue() != ""


def test_a_disabled_line_costs_next_to_nothing(log: logging.Logger) -> None:
    """A debug line that is off costs less than two microseconds."""
    start("info", "json")

    def loop() -> float:
        began = time.process_time()
        for _ in range(20_000):
            log.debug("done %s", "x", extra=None)
        return time.process_time() - began

    assert min(loop() for _ in range(5)) / 20_000 < 2e-6


def test_only_our_loggers() -> None:
    """Other loggers and the root logger are left alone; setting up twice does not write twice."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stderr = start("debug", "text")
    start("info", "text", stderr)
    logging.getLogger("taskbus.x").info("once")

    assert (root.handlers, root.level) == before
    assert stderr.getvalue().count("once") == 1
    assert logging.getLogger("other").handlers == []


def test_documented_events_are_logged() -> None:
    """Every event that docs/observing.md lists is one the code logs."""
    table = (ROOT / "docs" / "observing.md").read_text().partition("| Event |")[2].partition("\n\n")[0]
    events = set(re.findall(r"`([a-z-]+)`", re.sub(r"\|[^|]*\|$", "", table, flags=re.MULTILINE)))
    source = "".join(path.read_text() for path in (ROOT / "task").rglob("*.py"))

    assert "task-dead" in events
    assert {event for event in events if f'"event": "{event}"' not in source} == {
        "task-error",
        "task-alert",
        "task-dead",
        "task-retried",
    }
    assert '"event": f"task-{verdict.result}"' in source


def test_stdout_stays_clean() -> None:
    """Logs go to stderr, never to stdout."""
    code = "import logging; from task.logs import setup_logs; setup_logs(); logging.getLogger('taskbus').info('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == ""
    assert json.loads(done.stderr)["message"] == "x"


def test_lines_are_written_above_the_footer(log: logging.Logger) -> None:
    """A footer is taken away before a line is written and put back below it."""
    clear = "\r\033[K"
    stderr = start("info", "text")
    show_footer("50 %")
    show_footer("50 %")
    log.info("x")
    show_footer("")
    log.info("y")
    first, second, rest = stderr.getvalue().split("\n")

    assert re.fullmatch(rf"{re.escape(clear)}50 %{re.escape(clear)}[0-9:]+ INFO    taskbus.worker  x", first)
    assert second.startswith(f"50 %{clear}")
    assert second.endswith("  y")
    assert rest == ""


def test_a_closed_stderr_stops_nobody(log: logging.Logger) -> None:
    """When stderr is gone, logging and the footer do nothing, without an exception."""
    stderr = start("info", "text")
    stderr.close()
    show_footer("50 %")
    log.info("x")
