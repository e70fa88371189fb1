"""The ``taskbus`` command as a whole: help, version, names, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.taskbus_command import taskbus

COMMANDS = ["worker", "taskmaster", "send", "tail", "peek", "topics", "depth", "pipe", "buses", "new", "version"]


def test_help_lists_every_command(tmp_path: Path) -> None:
    """--help names each command with a line of help, on stdout."""
    result = taskbus("--help", cwd=tmp_path)

    assert (result.code, result.err) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(tmp_path: Path, name: str) -> None:
    """COMMAND --help explains it and leaves nothing behind."""
    result = taskbus(name, "--help", cwd=tmp_path)

    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: taskbus {name}")
    assert list(tmp_path.iterdir()) == []


def test_no_command_shows_help_as_an_error(tmp_path: Path) -> None:
    """Without a command the help goes to stderr: stdout is for results."""
    result = taskbus(cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert "Commands:" in result.err


@pytest.mark.parametrize("args", [["--version"], ["version"]])
def test_version(tmp_path: Path, args: list[str]) -> None:
    """The version is one line."""
    result = taskbus(*args, cwd=tmp_path)

    assert result.code == 0
    assert result.out.startswith("taskbus ")
    assert result.out.count("\n") == 1


def test_misspelt_command_suggests_the_nearest(tmp_path: Path) -> None:
    """An unknown command is a usage error that names the nearest."""
    result = taskbus("sned", cwd=tmp_path)

    assert result.code == 2
    assert result.err.startswith("taskbus: error: no command is called 'sned'; did you mean 'send'?\n")


def test_misspelt_option_suggests_the_nearest(tmp_path: Path) -> None:
    """An unknown option is a usage error that names the nearest and where to read on."""
    result = taskbus("send", "a", "b", "--topci", "x", cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert "--topic" in result.err
    assert "Try 'taskbus send --help'." in result.err


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("nosuch:x", 2, "no bus has the scheme 'nosuch'; known: "),
        ("sqlit:x.db", 2, "did you mean 'sqlite'?"),
        ("work.db", 2, "'work.db' is not a bus URL"),
        ("lines:out.jsonl?snyc=1", 2, "the lines bus has no option 'snyc'; did you mean 'sync'?"),
        ("lines:no/such/folder/out.jsonl", 2, "no/such/folder/out.jsonl"),
        ("lines:.", 2, "it is a directory"),
    ],
)
def test_wrong_bus_is_told_without_a_traceback(tmp_path: Path, url: str, code: int, told: str) -> None:
    """A bus URL that cannot be used says what is wrong, from --bus and from TASKBUS_BUS."""
    for result in (
        taskbus("send", "a", "b", "--bus", url, cwd=tmp_path),
        taskbus("send", "a", "b", cwd=tmp_path, env={"TASKBUS_BUS": url}),
    ):
        assert (result.code, result.out) == (code, "")
        assert result.err.startswith("taskbus: error: ")
        assert told in result.err


def test_password_in_a_wrong_url_is_not_shown(tmp_path: Path) -> None:
    """No secret of a bus URL reaches the terminal."""
    result = taskbus("topics", "--bus", "nosuch://me:pass-word-7@host/x", cwd=tmp_path)

    assert result.code == 2
    assert "pass-word-7" not in result.err + result.out


def test_what_a_bus_cannot_do_is_a_usage_error(tmp_path: Path) -> None:
    """A command the bus has no means for says so."""
    result = taskbus("depth", "x", "--group", "g", "--bus", "lines:x", cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert "the lines bus has no depth" in result.err


def test_buses_are_json_lines_with_capabilities(tmp_path: Path) -> None:
    """Each kind of bus is one JSON line; an installed one has its declared capabilities."""
    result = taskbus("buses", cwd=tmp_path)
    buses = {line["scheme"]: line for line in map(json.loads, result.out.splitlines())}

    assert result.code == 0
    assert {"file", "lines", "memory", "null", "sqlite", "stdio"} <= set(buses)
    assert buses["memory"]["installed"] is True
    assert buses["memory"]["capabilities"]["durability"] == "D0"
    assert buses["memory"]["capabilities"]["order"] == "topic"
