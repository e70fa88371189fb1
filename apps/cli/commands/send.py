"""``taskbus send``: one task from the command line, or a file of tasks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import click

from apps.cli.errors import run_async, say
from apps.cli.later import Later
from apps.cli.options import bus_option, duration, key_value, moment
from apps.cli.output import print_lines
from apps.cli.task_file import BadLine, TaskFile
from apps.cli.wait import Waiter
from bus import BusError, check_topic, connect
from task.delaying import DELAY_TOPIC
from task.task import Dialect, Task, new_id

__all__ = ["command"]

#: Tasks published at once, and then confirmed.
_BATCH = 500
#: Bad lines that are reported one by one.
_REPORTED = 20
_STDOUT = ("", "-", "/dev/stdout")


@click.command()
@click.argument("type", required=False)
@click.argument("value", required=False)
@bus_option()
@click.option("--topic", metavar="NAME", help="Topic to send to; by default the task type.")
@click.option("--meta", type=key_value, multiple=True, metavar="KEY=VALUE", help="A text to travel along; repeatable.")
@click.option("--job", metavar="NAME", help="Name of the job of that type.")
@click.option("--id", metavar="TEXT", help="Id of the task; by default a new one.")
@click.option("--delay", type=duration, default="0", metavar="TIME", help="Deliver it only after this time.")
@click.option("--at", type=moment, metavar="TIME", help="Deliver it only then: 2026-01-31T08:00:00Z.")
@click.option(
    "--delay-topic",
    default=DELAY_TOPIC,
    show_default=True,
    metavar="NAME",
    help="Where to send what the bus cannot delay, for `taskbus taskmaster delay`; - for nowhere.",
)
@click.option(
    "--dialect",
    type=click.Choice([str(dialect.value) for dialect in Dialect]),
    help="How to write it: go is for workers of the Go toolkit. By default taskbus, or with --file as it was read.",
)
@click.option("--file", metavar="PATH|-", help="Send the tasks of a file of JSON lines; - is standard input.")
@click.option("--skip-bad", is_flag=True, help="With --file: send the other tasks although some lines are none.")
@click.option("--wait", is_flag=True, help="Wait until done; print the done task instead of the sent one.")
@click.option("--timeout", type=duration, metavar="TIME", help="With --wait: how long at most; by default for ever.")
@click.option("--done-topic", default="done", show_default=True, metavar="NAME", help="With --wait: where it ends up.")
def command(
    type: str | None,
    value: str | None,
    bus: str,
    topic: str | None,
    meta: tuple[tuple[str, str], ...],
    job: str | None,
    id: str | None,
    delay: float,
    at: datetime | None,
    delay_topic: str,
    dialect: str | None,
    file: str | None,
    skip_bad: bool,
    wait: bool,
    timeout: float | None,
    done_topic: str,
) -> int:
    """Send a task of TYPE with VALUE, or the tasks of a file, and print what was sent as JSON lines.

    Exit code 0 says that the bus has confirmed every task; with --wait, that every task ended with complete or warn.
    With --wait it is 1 if a task ended with error or alert, and 3 if --timeout passed.
    """
    for name in (topic, None if delay_topic == "-" else delay_topic):
        if name is not None:
            check_topic(name)
    if at is not None and delay:
        raise click.UsageError("--at and --delay: give one of them")
    later = Later(delay, at, None if delay_topic == "-" else delay_topic)
    waiter = Waiter(done_topic, timeout) if wait else None
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    if file is None:
        if type is None:
            raise click.UsageError("which task? Give its TYPE and VALUE, or --file")
        if skip_bad:
            raise click.UsageError("--skip-bad is for --file")
        try:
            task = Task(type, value or "", job=job, id=id, meta=dict(meta))
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return run_async(_send(bus, _written([task], dialect), topic, later, waiter))
    if type is not None or job is not None or id is not None or meta:
        raise click.UsageError("--file takes everything from the file: leave out TYPE, VALUE, --job, --id and --meta")
    with TaskFile(file, lambda task: check_topic(topic or task.type)) as tasks:
        count, bad = _check(tasks)
        if bad and not skip_bad:
            say(f"error: {bad} of {count + bad} lines of {tasks.name} are no tasks; nothing was sent (see --skip-bad)")
            return 1
        if not count:
            say(f"{tasks.name} holds no tasks")
            return 0
        return run_async(_send(bus, _written(_completed(tasks), dialect), topic, later, waiter))


def _check(tasks: TaskFile) -> tuple[int, int]:
    """How many lines are tasks and how many are not; tell which are not."""
    good = bad = 0
    for found in tasks.read():
        if isinstance(found, BadLine):
            bad += 1
            if bad <= _REPORTED:
                say(f"{tasks.name}:{found.number}: {found.reason}")
        else:
            good += 1
    if bad > _REPORTED:
        say(f"{tasks.name}: … and {bad - _REPORTED} more")
    return good, bad


def _completed(tasks: TaskFile) -> Iterator[Task]:
    """The tasks of the file, each with an id and a time of creation."""
    for found in tasks.read():
        if not isinstance(found, BadLine):
            missing = {"id": found.id or new_id(), "created": found.created or datetime.now(UTC)}
            yield found if found.id and found.created else found.replace(**missing)


def _written(tasks: Iterable[Task], dialect: str | None) -> Iterable[Task]:
    """The same tasks in ``dialect``, or as they are."""
    return tasks if dialect is None else (task.in_dialect(Dialect(dialect)) for task in tasks)


async def _send(url: str, tasks: Iterable[Task], topic: str | None, later: Later, waiter: Waiter | None) -> int:
    sent = 0
    async with connect(url) as bus, await bus.producer() as producer:
        # A bus that is our standard output prints them itself.
        prints = waiter is None and not (bus.url.scheme in ("lines", "stdio") and bus.url.path in _STDOUT)
        if waiter is not None:
            await waiter.subscribe(bus)
        remaining = iter(tasks)
        if told := later.told(bus):
            say(told)
        while batch := list(itertools.islice(remaining, _BATCH)):
            messages = [later.message(bus, task, topic or task.type) for task in batch]
            bodies = [message.body for message in messages]
            try:
                await producer.publish_many(messages)
            except BusError as error:
                if sent or error.transient:
                    unsure = f"; of the next {len(batch)} some may have arrived" if error.transient else ""
                    say(f"{sent} tasks were sent and confirmed{unsure}")
                raise
            sent += len(batch)
            if prints:
                print_lines(bodies)
            if waiter is not None:
                waiter.expect(batch)
        return 0 if waiter is None else await waiter.wait()
