"""From an exception to a line on stderr and an exit code; never a traceback for what a user may do.

====  ==================================================
0     what was asked for was done
1     the work failed
2     wrong usage: an option, a URL, a name, a configuration
3     the bus, or time ran out waiting for it
130   Ctrl-C
141   whoever read our output has gone (``taskbus tail done | head -1``)
143   SIGTERM
====  ==================================================
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import click

__all__ = ["INTERRUPTED", "OUTPUT_CLOSED", "TERMINATED", "run", "run_async", "say"]

INTERRUPTED = 128 + signal.SIGINT
OUTPUT_CLOSED = 128 + signal.SIGPIPE
TERMINATED = 128 + signal.SIGTERM

T = TypeVar("T")


class _Terminated(Exception):
    """SIGTERM came."""


def say(text: str) -> None:
    """Write one line for people to stderr."""
    click.echo(f"taskbus: {text}", err=True)


def run(command: click.Command, args: Sequence[str]) -> int:
    """Run a command and return its exit code; what goes wrong is told on stderr."""
    from bus.errors import OutputClosedError, TaskbusError
    from task.exits import Exit

    try:
        code = command.main(args=list(args), prog_name="taskbus", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.Abort:
        return INTERRUPTED
    except _Terminated:
        return TERMINATED
    except click.ClickException as error:
        say(f"error: {error.format_message()}")
        context = getattr(error, "ctx", None)
        if context is not None:
            click.echo(f"Try '{context.command_path} --help'.", err=True)
        return Exit.USAGE
    except (BrokenPipeError, OutputClosedError):
        _forget_output()
        return OUTPUT_CLOSED
    except TaskbusError as error:
        say(f"error: {error}")
        return _code_of(error)
    except OSError as error:
        # Files are opened where their name is known; what is left is writing to our own output.
        _forget_output()
        say(f"error: cannot write the output: {error.strerror or error}")
        return Exit.FAILED


def _code_of(error: Exception) -> int:
    from bus.errors import BadNameError, BusError, BusURLError, UnsupportedError
    from task.errors import SettingsError, WorkerError
    from task.exits import Exit

    if isinstance(error, (BusURLError, BadNameError, UnsupportedError, SettingsError, WorkerError)):
        return Exit.USAGE
    return Exit.BUS if isinstance(error, BusError) else Exit.FAILED


def _forget_output() -> None:
    """Python flushes stdout when it exits; what can no longer be written would be complained about there."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end on an event loop. SIGTERM ends it as orderly as Ctrl-C does."""

    async def guarded() -> T:
        me = asyncio.current_task()
        if me is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
        return await work

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise _Terminated from None
