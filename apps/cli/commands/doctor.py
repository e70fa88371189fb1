"""``taskbus doctor``: what of a setup will hurt, and what to change."""

from __future__ import annotations

import click
import orjson

from apps.cli.errors import run_async
from apps.cli.options import duration
from apps.cli.output import print_lines
from apps.doctor.asked import Asked, prepare
from apps.doctor.finding import Severity
from apps.doctor.gather import gather
from apps.doctor.registry import examine
from apps.doctor.report import as_json, as_text, worst

__all__ = ["command"]


@click.command()
@click.argument("target", required=False)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- WORKER-OPTIONS]")
@click.option("--bus", metavar="URL", help="Bus to look at; by default the one the worker uses.")
@click.option("--status", metavar="URL", help="Status page of a running worker: http://HOST:PORT.")
@click.option("--type", "kind", metavar="NAME", help="Task type of the worker.")
@click.option("--topic", metavar="NAME", help="Topic of its tasks; by default the task type.")
@click.option("--group", metavar="NAME", help="Group it reads as; by default the task type.")
@click.option("--grace", type=duration, metavar="TIME", help="How long the orchestrator waits before it kills.")
@click.option("--unit", metavar="FILE", help="systemd unit, Kubernetes manifest or compose file of the worker.")
@click.option("--monitor", metavar="URL", help="Monitoring port of a NATS server: http://HOST:8222.")
@click.option("--interval", type=duration, default="1s", show_default=True, metavar="TIME", help="Between two looks.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")
def command(
    target: str | None,
    flags: tuple[str, ...],
    bus: str | None,
    status: str | None,
    kind: str | None,
    topic: str | None,
    group: str | None,
    grace: float | None,
    unit: str | None,
    monitor: str | None,
    interval: float,
    as_object: bool,
) -> int:
    """Say what of a setup will hurt, why, and what to change. Nothing is altered.

    TARGET is the configuration file of a worker, a bus URL, or the http:// address of a worker's status page; without
    one, the settings of the environment. Options of the worker follow after --.

    Exit code 0 says that no problem was found, 1 that one was, 2 that the command is used wrongly.
    """
    asked = Asked(
        target=target,
        bus=bus,
        status=status,
        kind=kind,
        topic=topic,
        group=group,
        grace=grace,
        unit=unit,
        flags=flags,
    )
    setup = run_async(gather(prepare(asked), interval=interval, monitor=monitor))
    made = list(examine(setup))
    print_lines([orjson.dumps(as_json(setup, made))] if as_object else [line.encode() for line in as_text(setup, made)])
    return 1 if worst(made) is Severity.PROBLEM else 0
