"""Time that is not set: what a process shows, and what processes that share a bus agree on."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from pathlib import Path

import pytest

import bus
from bus import steady
from bus.steady import SteadyClock, start_of_time

pytestmark = pytest.mark.no_faults("it looks into the adapters")

HOURS = 5 * 3600.0


def _ahead(url: str) -> float:
    """How far the clock of a connection is ahead of the true time."""

    async def ask() -> float:
        async with bus.connect(url) as b:
            return b._clock() - time.time()  # type: ignore[attr-defined,no-any-return]

    return asyncio.run(ask())


def test_it_shows_the_time_and_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads like the clock of the machine, and goes on from there whatever that shows."""
    clock = SteadyClock()
    assert abs(clock() - time.time()) < 1.0
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + HOURS)
    assert abs(clock() - true()) < 1.0
    assert clock() <= clock()


def test_without_a_start_it_is_the_clock_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that cannot tell when it was started time is as set."""
    monkeypatch.setattr(steady, "start_of_time", lambda: None)
    clock = SteadyClock()
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + HOURS)
    assert abs(clock() - time.time()) < 1.0


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_who_comes_later_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """The first after a start of the machine decides, also for those who come when the clock has been set."""
    url = f"{scheme}:{tmp_path}/bus"
    assert abs(_ahead(url)) < 1.0
    true = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: true() - HOURS)
        assert abs(_ahead(url) - HOURS) < 1.0
        patched.setattr(f"bus.{'sql.engine' if scheme == 'sqlite' else 'file.agreeing'}.start_of_time", lambda: "next")
        assert abs(_ahead(url)) < 1.0
    assert abs(_ahead(url)) < 1.0


def test_a_database_of_before(tmp_path: Path) -> None:
    """One made by a taskbus that knew nothing of this is used on."""
    url = f"sqlite:{tmp_path}/bus"
    _ahead(url)
    with sqlite3.connect(tmp_path / "bus") as connection:
        connection.execute("DROP TABLE starts")
    connection.close()
    assert abs(_ahead(url)) < 1.0


def test_a_torn_line_hides_no_other(tmp_path: Path) -> None:
    """What a power failure left of an earlier note is not believed, and does not spoil the next."""
    (tmp_path / ".clock").write_bytes(
        f"{start_of_time()} 12.5x\n".encode() + b"\0" * 100 + f"{start_of_time()} 1".encode()
    )
    assert abs(_ahead(f"file:{tmp_path}")) < 1.0
    lines = (tmp_path / ".clock").read_bytes().split(b"\n")
    assert [line.split()[0].decode() for line in lines[-2:-1]] == [start_of_time()]


def test_a_note_that_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Is told, and the bus is used all the same."""
    caplog.set_level(logging.WARNING)
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".clock"):
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    assert abs(_ahead(f"file:{tmp_path}")) < 1.0
    assert f"cannot keep {tmp_path}/.clock: No space left on device" in caplog.text
