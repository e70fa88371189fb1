"""The commands of ``taskbus``."""

from __future__ import annotations

import click

from apps.cli.lazy import Entry, LazyGroup

__all__ = ["cli", "version_text"]

_COMMANDS = {
    "worker": Entry("apps.cli.commands.worker:command", "Run a worker application: a built-in or your own."),
    "taskmaster": Entry("apps.cli.commands.taskmaster:command", "Run an application that makes tasks: cron, on-done …"),
    "workflow": Entry("apps.cli.commands.workflow:command", "Look at the runs of workflows, and cancel them."),
    "simulate": Entry("taskmasters.simulate.app:simulate", "Print what rule files would make together, and when."),
    "send": Entry("apps.cli.commands.send:command", "Send a task, or a file of tasks."),
    "tail": Entry("apps.cli.commands.tail:command", "Print what is published to a topic, as it comes."),
    "peek": Entry("apps.cli.commands.peek:command", "Print pending messages without receiving them."),
    "topics": Entry("apps.cli.commands.topics:command", "List the topics."),
    "depth": Entry("apps.cli.commands.depth:command", "Tell how much is pending in a topic."),
    "pipe": Entry("apps.cli.commands.pipe:command", "Move or copy tasks to another topic or bus."),
    "redrive": Entry("apps.cli.commands.redrive:command", "Send dead letters back to where they came from."),
    "doctor": Entry("apps.cli.commands.doctor:command", "Say what of a setup will hurt, and what to change."),
    "certify": Entry("apps.cli.commands.certify:command", "Show whether a worker bears tasks twice, and in any order."),
    "buses": Entry("apps.cli.commands.buses:command", "List the kinds of bus and what each can do."),
    "new": Entry("apps.cli.commands.new:command", "Write a starter folder to begin from."),
    "version": Entry("apps.cli.commands.version:command", "Print the version."),
}


def version_text() -> str:
    """``taskbus 1.2.3``."""
    from importlib.metadata import version

    return f"taskbus {version('taskbus')}"


def _print_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(version_text())
        ctx.exit()


cli = LazyGroup(
    name="taskbus",
    entries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Do work in small JSON tasks carried by the message bus you already have.",
    epilog="The bus is --bus URL, or the environment variable TASKBUS_BUS, or sqlite:taskbus.db in the current folder.",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version and exit.",
        )
    ],
)
