from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from io import StringIO
from types import SimpleNamespace

import pytest

from task.logs import setup_logs
from task.progress import Progress

CLEAR = "\r\033[K"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Work:
    """Something whose progress is told, and the clock it goes by."""

    def __init__(self) -> None:
        self.position = 0
        self.done = 0
        self.now = 0.0

    def bar(self, total: int | None) -> Progress:
        return Progress(total, lambda: self.position, lambda: self.done)


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    logger = logging.getLogger("taskbus")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate, level = before
    logger.setLevel(level)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    found = Work()
    monkeypatch.setattr("task.progress.time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setenv("TERM", "xterm")
    return found


def on(stream: StringIO, monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """Put ``stream`` in the place of stderr, with logs as text."""
    monkeypatch.setattr(sys, "stderr", stream)
    setup_logs("info", "text")
    return stream


def test_bar(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """The bar shows the part read, the tasks done, how many a second and the time left, and at last the end."""
    terminal = on(Terminal(), monkeypatch)
    bar = work.bar(4000)
    bar.tick()
    work.position, work.done, work.now = 1000, 1234, 2.0
    bar.tick()
    bar.tick()
    work.position, work.done, work.now = 4000, 5000, 5.0
    bar.finish()

    assert terminal.getvalue().split(CLEAR) == [
        "",
        f"[{'':30}]   0%  0 done, 0/s",
        f"[{'#' * 7:30}]  25%  1,234 done, 617/s, 6s left",
        f"[{'#' * 30}] 100%  5,000 done, 1,000/s\n",
    ]


def test_log_lines_stand_above_the_bar(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """A log line takes the bar's place, and the bar goes on below it; nothing is written into the line."""
    terminal = on(Terminal(), monkeypatch)
    bar = work.bar(10)
    bar.tick()
    logging.getLogger("taskbus.worker").info("hello")
    bar.finish()
    shown = [line.rsplit(CLEAR, 1)[-1] for line in terminal.getvalue().split("\n")]

    assert re.fullmatch(r"[0-9:]+ INFO    taskbus.worker  hello", shown[0])
    assert shown[1].startswith("[ ")
    assert shown[2] == ""


@pytest.mark.parametrize("total", [0, 10, None])
def test_silent_without_a_terminal(total: int | None, monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """Where stderr is no terminal nothing is ever written."""
    stream = on(StringIO(), monkeypatch)
    bar = work.bar(total)
    bar.tick()
    bar.finish()

    assert stream.getvalue() == ""


def test_silent_without_a_size_or_a_cursor(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """Nothing is written for an input of unknown size, or to a terminal without a cursor."""
    terminal = on(Terminal(), monkeypatch)
    work.bar(None).tick()
    work.bar(None).finish()
    monkeypatch.setenv("TERM", "dumb")
    work.bar(10).tick()
    work.bar(10).finish()

    assert terminal.getvalue() == ""


def test_an_empty_or_growing_input(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """An empty input is read to the end at once; one that grew while it was read is not read beyond its end."""
    terminal = on(Terminal(), monkeypatch)
    work.bar(0).finish()
    work.position = 20
    work.bar(10).finish()

    assert terminal.getvalue().count("] 100%") == 2


def test_on_a_narrow_terminal() -> None:
    """On a real terminal the bar stays within one line, however narrow it is."""
    code = (
        "from task.logs import setup_logs; from task.progress import Progress\n"
        "setup_logs(); bar = Progress(10, lambda: 5, lambda: 3); bar.tick(); bar.finish()"
    )
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 41, 0, 0))
    env = {**os.environ, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stderr=terminal, stdout=subprocess.DEVNULL, check=True, env=env)
    os.close(terminal)
    shown = os.read(main, 4096).decode()
    os.close(main)

    bar = f"[{'#' * 15:30}]  50%  3"
    assert shown == f"{CLEAR}{bar}{CLEAR}{bar}\r\n"
