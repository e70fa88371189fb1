"""The command ``cron``, run in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from bus import OutputClosedError
from task.app import invoke
from task.exits import Exit
from taskmasters.commands import commands
from taskmasters.cron.app import cron
from taskmasters.running import run_until_stopped

RULES = """
[[rule]]
cron = "* * * * * *"
type = "t"
task = "{ts}"
"""


@pytest.fixture
def rules(tmp_path: Path) -> str:
    """A right rule file."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return str(path)


def test_check(rules: str, capfd: pytest.CaptureFixture[str]) -> None:
    """--check explains on stdout and touches nothing."""
    assert invoke(cron, [rules, "--check"]) == Exit.OK

    out, err = capfd.readouterr()
    assert "when: Every second, UTC time" in out
    assert err == ""
    assert [path.name for path in Path(rules).parent.iterdir()] == ["rules.toml"]


@pytest.mark.parametrize("option", ["--check", "--dry-run", "--next=1"])
def test_a_wrong_file(tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str) -> None:
    """A wrong rule file gives exit code 2 and the mistakes on stderr, whatever was asked for."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES + "colour = 1\nsize = 2\n")
    assert invoke(cron, [str(path), option]) == Exit.USAGE

    out, err = capfd.readouterr()
    assert out == ""
    assert f"{path}:6: rule[0].colour: unknown key" in err
    assert f"{path}:7: rule[0].size: unknown key" in err


def test_next(rules: str, capfd: pytest.CaptureFixture[str]) -> None:
    """--next prints that many tasks as JSON lines, and nothing else on stdout."""
    assert invoke(cron, [rules, "--next", "1200"]) == Exit.OK

    tasks = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len({task["id"] for task in tasks}) == 1200
    assert [task["meta"]["cron"] for task in tasks] == sorted({task["meta"]["cron"] for task in tasks})
    assert [path.name for path in Path(rules).parent.iterdir()] == ["rules.toml"]


def test_a_state_that_cannot_be_kept(rules: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A state file that cannot be made ends it before anything is sent, with what to do."""
    assert invoke(cron, [rules, "--bus", "memory:", "--state", "/nowhere/state.db"]) == Exit.USAGE

    assert "the state file /nowhere/state.db cannot be used" in capfd.readouterr().err


def test_a_wrong_bus(rules: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A bus that does not exist is told with the nearest that does."""
    assert invoke(cron, [rules, "--bus", "memry:", "--state", "-"]) == Exit.USAGE

    assert "did you mean 'memory'" in capfd.readouterr().err


def test_the_commands_exist() -> None:
    """Every command of the table can be loaded and shows its help."""
    import importlib

    for target in commands.values():
        module, _, name = target.partition(":")
        assert invoke(getattr(importlib.import_module(module), name), ["--help"]) == Exit.OK


class Stubborn:
    """A taskmaster that ends only when it is cancelled; ``stopped`` counts requests."""

    def __init__(self, polite: bool) -> None:
        self.polite = polite
        self.stopped = 0
        self.end = asyncio.Event()

    async def run(self) -> None:
        """Ask for a SIGTERM, then wait."""
        os.kill(os.getpid(), signal.SIGTERM)
        await self.end.wait()

    def stop(self) -> None:
        """End, if polite; otherwise have a second signal sent."""
        self.stopped += 1
        if self.polite:
            self.end.set()
        elif self.stopped == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("polite", [True, False])
def test_a_second_signal_hastens(polite: bool) -> None:
    """A signal lets what runs come to an end; a second one does not wait for it."""

    async def main() -> None:
        taskmaster = Stubborn(polite)
        async with asyncio.timeout(10):
            assert await run_until_stopped(taskmaster, kill_time=60.0) is polite
        assert taskmaster.stopped == (1 if polite else 2)

    asyncio.run(main())


def test_the_kill_time_ends() -> None:
    """What does not end within the kill time is cut short."""

    class Deaf(Stubborn):
        def stop(self) -> None:
            """Not heard."""

    assert asyncio.run(run_until_stopped(Deaf(polite=False), kill_time=0.05)) is False


def test_what_run_raises_is_raised() -> None:
    """An error of the taskmaster ends it."""

    class Failing(Stubborn):
        async def run(self) -> None:
            """Fail."""
            raise OutputClosedError("gone")

    with pytest.raises(OutputClosedError):
        asyncio.run(run_until_stopped(Failing(polite=True), kill_time=1.0))
