"""How message bodies are printed, and what a command's exit code says."""

from __future__ import annotations

import json

import click
import pytest

from apps.cli.errors import run
from apps.cli.output import as_line
from bus import BadNameError, BusURLError, FullError, TaskbusError, UnreachableError, UnsupportedError
from task import DecodeError, SettingsError, WorkerError


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"a": 1.10, "b":"\\n"}', b'{"a": 1.10, "b":"\\n"}'),
        (b'{\r\n  "a": 1\n}\n', b'{    "a": 1 }'),
        (b" 5 ", b"5"),
        (b"", b'{"body":""}'),
        (b"two\nlines", b'{"body":"two\\nlines"}'),
        (b'{"a": NaN}', b'{"body":"{\\"a\\": NaN}"}'),
        (b"\xff", b'{"body_base64":"/w=="}'),
    ],
)
def test_every_body_is_one_line_of_json(body: bytes, line: bytes) -> None:
    """JSON stays as it is but for line breaks between its parts; anything else is wrapped."""
    assert as_line(body) == line
    json.loads(line)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BusURLError("x"), 2),
        (BadNameError("x"), 2),
        (UnsupportedError("x"), 2),
        (SettingsError("x"), 2),
        (WorkerError("x"), 2),
        (click.UsageError("x"), 2),
        (UnreachableError("x"), 3),
        (FullError("x"), 3),
        (DecodeError("not-json", "x"), 1),
        (TaskbusError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_tells_whose_fault_it_is(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage is 2, the bus 3, the work 1; what happened is on stderr."""

    @click.command()
    def fail() -> None:
        raise error

    assert run(fail, []) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[:1] == ([""] if code == 130 else ["taskbus: error: x"])


def test_a_mistake_of_ours_is_not_hidden() -> None:
    """Only errors meant for users become a sentence; a bug keeps its traceback."""

    @click.command()
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail, [])
