"""The settings of the shell worker, beyond those of every worker."""

from __future__ import annotations

from dataclasses import dataclass

from task.options import WorkerOptions
from task.outcome import Result
from task.setting import choice, setting

__all__ = ["ShellOptions"]


def _read_codes(text: str) -> str:
    _codes(text)
    return text


def _codes(text: str | None) -> list[int]:
    codes = []
    for piece in (text or "").split(","):
        if piece.strip():
            if not piece.strip().isdecimal() or not 0 < int(piece) < 256:
                raise ValueError(f"{piece.strip()!r} is not an exit code from 1 to 255")
            codes.append(int(piece))
    return codes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellOptions(WorkerOptions):
    """The settings of the shell worker."""

    type_: str = setting("shell", "Type of the tasks to do.", metavar="NAME")
    stdin: str = choice("none", ("none", "task"), "What the program reads from standard input; task: the task as JSON.")
    pass_env: str | None = setting(
        None, "Environment variables the program gets beside PATH, HOME, LANG and TZ: A,B.", metavar="NAMES"
    )
    warn_codes: str | None = setting(
        None, "Exit codes that mean warn; 0 is complete, others error.", read=_read_codes, metavar="CODES"
    )
    alert_codes: str | None = setting(
        None, "Exit codes that mean alert, never to be retried.", read=_read_codes, metavar="CODES"
    )

    def results(self) -> dict[int, Result]:
        """The result of each exit code that has one of its own."""
        return dict.fromkeys(_codes(self.warn_codes), Result.WARN) | dict.fromkeys(
            _codes(self.alert_codes), Result.ALERT
        )

    def names(self) -> tuple[str, ...]:
        """The environment variables to pass on."""
        return tuple(name.strip() for name in (self.pass_env or "").split(",") if name.strip())
