"""What waits, and whether anybody takes it."""

from __future__ import annotations

from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, warning
from apps.doctor.setup import Setup
from bus.units import format_duration

__all__ = ["CHECKS"]

#: Fewer waiting tasks than this are no backlog.
_MANY = 100
#: A task that has waited so long, with none in progress, waits for nobody. Seconds.
_FORGOTTEN = 60.0


def _dead(setup: Setup) -> Iterator[Finding]:
    if setup.dead:
        yield warning(
            f"{setup.dead} dead letters wait in {setup.dead_topic}",
            "these tasks are not done, and nobody will do them",
            f"see why with `taskbus peek {setup.dead_topic}`, mend it, and send them back with "
            f"`taskbus redrive {setup.dead_topic} --execute`",
        )


def _growing(setup: Setup) -> Iterator[Finding]:
    for queue in setup.queues or ():
        before, after = queue.first.total, queue.second.total
        if after > before and after >= _MANY:
            yield warning(
                f"what waits for the group {queue.group} of {queue.topic} grew from {before} to {after} within "
                f"{format_duration(round(queue.apart, 1))}",
                "tasks come faster than they are done: the last one waits ever longer",
                "start more instances, or --processes; a group that nobody needs is to be deleted where the bus can",
            )


def _idle(setup: Setup) -> Iterator[Finding]:
    for queue in setup.queues or ():
        waits = queue.second.ready and not (queue.first.in_flight or queue.second.in_flight)
        if waits and queue.second.ready >= queue.first.ready and (queue.oldest or 0.0) > _FORGOTTEN:
            yield warning(
                f"{queue.second.ready} messages wait for the group {queue.group} of {queue.topic}, the first for "
                f"{format_duration(round(queue.oldest or 0))}, and none is in progress",
                "nobody receives them",
                f"start a worker, or whoever reads as {queue.group}; if nobody is to, delete the group where the bus "
                "can, since it keeps what it has not read",
            )


def _unread_done(setup: Setup) -> Iterator[Finding]:
    if setup.unread_done is not None and setup.unread_done >= _MANY:
        yield warning(
            f"{setup.unread_done} or more done tasks lie in {setup.done_topic}, which no group reads",
            f"on a {setup.scheme} bus what nobody takes stays, and fills the disk",
            "--done-topic - where nobody wants done tasks",
        )


CHECKS = (
    Check("dead-letters", "Are there tasks that were given up?", _dead, ("dead",)),
    Check("backlog", "Does what waits grow?", _growing, ("queues",)),
    Check("idle", "Does anybody take what waits?", _idle, ("queues",)),
    Check("done-unread", "Do done tasks pile up unread?", _unread_done, ("unread_done",)),
)
