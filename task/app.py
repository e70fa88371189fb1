"""``run``: a complete command-line application around one worker."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bus import BadNameError, BusError, BusURLError, TaskbusError, UnsupportedError
from task.collector import calm_collector
from task.errors import WorkerError
from task.exits import Exit
from task.options import WorkerOptions
from task.signals import stop_on_signals
from task.streams import keep_standard_streams
from task.worker import Launch, worker_type
from task.worker_app import WorkerApp

if TYPE_CHECKING:
    import click

__all__ = ["exit_code", "invoke", "run", "run_command", "run_worker"]


def run(launch: Launch, *, type: str | None = None, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a worker as this program: read the options, work, exit.

    ``launch`` is a Worker class, or a function from a task to a worker, which may hand in what the worker needs; then
    ``type`` says which task type it does. ``argv`` is the command line, by default the program's.
    """
    keep_standard_streams()
    calm_collector()
    sys.exit(run_command(launch, sys.argv[1:] if argv is None else argv, type=type))


def run_command(launch: Launch, args: Sequence[str], *, type: str | None = None, prog_name: str | None = None) -> int:
    """The same, returning the exit code."""
    import click

    from task.settings import click_options, resolve

    try:
        kind = worker_type(launch, type)
    except WorkerError as error:
        return exit_code(error)

    @click.command(help=f"Do {kind} tasks.", context_settings={"help_option_names": ["-h", "--help"]})
    @click_options(WorkerOptions)
    def command(config: Path | None, **flags: object) -> int:
        return run_worker(launch, resolve(WorkerOptions, flags, config=config).settings, kind=kind)

    return invoke(command, args, prog_name)


def invoke(command: click.Command, args: Sequence[str], prog_name: str | None = None) -> int:
    """Run a click command and turn whatever ends it into an exit code, with a sentence on stderr and no traceback."""
    import click

    try:
        code = command.main(args=list(args), prog_name=prog_name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except TaskbusError as error:
        return exit_code(error)
    return code if isinstance(code, int) else Exit.OK


def exit_code(error: TaskbusError) -> Exit:
    """Tell the user about ``error`` and say with which code to exit."""
    sys.stderr.write(f"taskbus: error: {error}\n")
    if isinstance(error, WorkerError) and error.stuck:
        return Exit.STUCK
    wrong = not isinstance(error, BusError) or isinstance(error, (BusURLError, BadNameError, UnsupportedError))
    return Exit.USAGE if wrong else Exit.BUS


def run_worker(launch: Launch, options: WorkerOptions, *, kind: str | None = None) -> Exit:
    """Work with these options until the input ends or a signal comes. Logs, status page and progress bar included.

    Raises:
        TaskbusError: what keeps it from working.
    """
    from task.logs import setup_logs
    from task.supervisor.place import own_place

    place = own_place()
    setup_logs(options.log_level, options.log_format, place.number if place else None)
    if place is not None:
        options = dataclasses.replace(options, processes=1, status_port=None, progress=False)
    app = WorkerApp(launch, options, kind=kind)
    if options.processes > 1:
        from task.supervisor.supervise import supervise

        return supervise(app)
    with ExitStack() as stack:
        if options.status_port is not None:
            from task.report import Report
            from task.status import serve_status

            stack.enter_context(serve_status(Report(app), options.status_host, options.status_port))

        async def main() -> Exit:
            watchers: list[asyncio.Task[None]] = []

            def opened() -> None:
                _guard_stdout(app, stack)
                if options.progress and sys.stderr.isatty():
                    watchers.append(asyncio.create_task(_show_progress(app)))

            async with AsyncExitStack() as running:
                if place is None:
                    running.enter_context(stop_on_signals(app.stop))
                else:
                    # A hang-up is the parent's to answer.
                    running.enter_context(stop_on_signals(place.signalled, lambda: None))
                    await running.enter_async_context(place.reporting(app))
                try:
                    return await app.run(opened)
                finally:
                    for watcher in watchers:
                        watcher.cancel()
                    await asyncio.gather(*watchers, return_exceptions=True)

        return asyncio.run(main())


def _guard_stdout(app: WorkerApp, stack: ExitStack) -> None:
    """Done tasks go to stdout: what user code prints goes to stderr from now on, lest it mix with them."""
    if app.target.adapter not in ("lines", "stdio") or app.target.path not in ("", "-", "/dev/stdout", "/dev/fd/1"):
        return
    kept = os.dup(1)
    os.dup2(2, 1)
    # What was printed before, in the user's own program, follows where it goes.
    sys.stdout.flush()

    def restore() -> None:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)

    stack.callback(restore)


async def _show_progress(app: WorkerApp) -> None:
    """A progress bar while a terminal watches an input whose size is known."""
    from task.progress import Progress

    consumer: Any = app.consumer
    size: int | None = getattr(consumer, "size", None)
    if size is None:
        return

    def position() -> int:
        """Bytes settled: of those received, the share that is not held any more."""
        received, held = app.stats.received, app.receiver.held if app.receiver else 0
        return int(consumer.position * (received - held) / received) if received else 0

    bar = Progress(size, position, lambda: app.stats.done)
    try:
        while True:
            bar.tick()
            await asyncio.sleep(0.1)
    finally:
        bar.finish()
