"""The worker: a program's exit code and output become the task's result and message."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from task.codec import encode
from task.context import Context
from task.outcome import Outcome, Result, alert, error
from task.task import Task
from task.worker import Worker
from workers.shell.argv import Argv
from workers.shell.program import Ended, run_program

__all__ = ["PASSED", "Shell", "ShellWorker", "environment"]

#: Environment variables every program gets, where set.
PASSED = ("PATH", "HOME", "LANG", "TZ")
#: Why a start fails that may succeed later: no room for another process, file or page.
_TRANSIENT = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC)


def environment(names: tuple[str, ...] = ()) -> dict[str, str]:
    """The part of our own environment that programs see: :data:`PASSED` and ``names``."""
    return {name: os.environ[name] for name in (*PASSED, *names) if name in os.environ}


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Makes the worker for a task, from what is the same for all tasks.

    ``codes`` gives exit codes other than 0 (``complete``) a result; the rest are ``error``. ``stdin``: the program can
    read the task from its standard input. ``grace`` is the time in seconds between SIGTERM and SIGKILL.
    """

    argv: Argv
    # May hold secrets, which no message may show.
    env: Mapping[str, str] = field(default_factory=environment, repr=False)
    codes: Mapping[int, Result] = field(default_factory=dict)
    stdin: bool = False
    grace: float = 2.0
    type: str = "shell"

    def __call__(self, task: Task) -> ShellWorker:
        return ShellWorker(task, self)


class ShellWorker(Worker):
    """Runs the program for one task."""

    type = "shell"

    def __init__(self, task: Task, shell: Shell) -> None:
        super().__init__(task)
        self._shell = shell

    def do_task(self, ctx: Context) -> Outcome:
        shell = self._shell
        argv = shell.argv.fill(self.task)
        stdin = encode(self.task) if shell.stdin else None
        try:
            ended = run_program(argv, env=shell.env, stdin=stdin, ctx=ctx, grace=shell.grace)
        except OSError as problem:
            failed = error if problem.errno in _TRANSIENT else alert
            return failed(f"cannot run {argv[0]!r}: {problem.strerror}")
        return self._outcome(ended, ctx)

    def _outcome(self, ended: Ended, ctx: Context) -> Outcome:
        output = f": {ended.output}" if ended.output else ""
        if ended.stopped:
            return error(f"told to stop ({ctx.cancel_reason}), {_ending(ended.code)}{output}")
        if ended.code == 0:
            return Outcome(Result.COMPLETE, ended.output)
        result = self._shell.codes.get(ended.code, Result.ERROR)
        return Outcome(result, _ending(ended.code) + output, {"exit_code": str(ended.code)})


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
