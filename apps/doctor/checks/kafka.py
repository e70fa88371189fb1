"""What Kafka is told to do with topics and groups."""

from __future__ import annotations

from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, note, problem, warning
from apps.doctor.setup import Setup
from bus.units import format_duration

__all__ = ["CHECKS"]

_WEEK = 7 * 86400.0
_ALTER = "kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config"


def _at(setup: Setup, name: str, place: str) -> float | None:
    return next((value for value, where in setup.numbers(name) if where == place), None)


def _session(setup: Setup) -> Iterator[Finding]:
    ours, most = setup.number("option.session"), setup.number("broker.max_session")
    if ours is not None and most is not None and ours > most:
        yield problem(
            f"the URL says session={format_duration(ours)}, the brokers take {format_duration(most)} at most",
            "no consumer can join its group",
            f"session={format_duration(most)} in the URL, or group.max.session.timeout.ms={ours * 1000:.0f}",
        )


def _handover(setup: Setup) -> Iterator[Finding]:
    ours, stall = setup.number("option.handover"), setup.number("option.stall")
    if ours is not None and stall is not None and setup.durations and setup.durations.longest > ours:
        wanted = round(setup.durations.longest * 1.5) + 1
        poll = f" and stall={format_duration(wanted * 2)} (max.poll.interval.ms)" if wanted * 2 > stall else ""
        yield warning(
            f"tasks take up to {format_duration(round(setup.durations.longest, 3))} ({setup.durations.source}), and "
            f"handover is {format_duration(ours)}",
            "whenever an instance joins or leaves, tasks that take longer are cut short and done again elsewhere",
            f"handover={format_duration(wanted)}{poll} in the URL",
        )


def _replicas(setup: Setup) -> Iterator[Finding]:
    for copies, place in setup.numbers("topic.replicas"):
        in_sync, least = _at(setup, "topic.in_sync", place), _at(setup, "topic.min_in_sync", place)
        if in_sync is not None and least is not None and in_sync < least:
            yield problem(
                f"{place}: {in_sync:g} replicas are in sync, and min.insync.replicas is {least:g}",
                "nothing can be published to it: tasks cannot be sent, or results not be given",
                "bring the brokers back that are away",
            )
        elif in_sync is not None and in_sync < copies:
            yield warning(
                f"{place}: {in_sync:g} of {copies:g} replicas are in sync",
                "the loss of another broker stops the topic or loses tasks",
                "bring back the broker that is away or lags behind",
            )
        if copies == 1:
            yield note(
                f"{place} has one replica",
                "while its broker is away nothing is received or sent, and with its disk all tasks are lost",
                "three brokers, replicas=3 in the URL for new topics, kafka-reassign-partitions.sh for this one",
            )
        elif least is not None and least < 2:
            yield warning(
                f"{place} has {copies:g} replicas, and min.insync.replicas is {least:g}",
                "a task is confirmed although only one broker has it, and is lost with that broker",
                f"{_ALTER} min.insync.replicas=2",
            )
        elif least is not None and least >= copies:
            yield warning(
                f"{place} has {copies:g} replicas, and min.insync.replicas is {least:g}",
                "one broker that is away stops publishing",
                f"{_ALTER} min.insync.replicas={copies - 1:g}",
            )


def _retention(setup: Setup) -> Iterator[Finding]:
    waiting = max((queue.oldest or 0.0 for queue in setup.queues or ()), default=0.0)
    for kept, place in setup.numbers("topic.retention"):
        what = f"{place} keeps messages for {format_duration(kept)}, done or not"
        change = f"{_ALTER} retention.ms={round(max(_WEEK, waiting * 4) * 1000)}"
        if kept < 0:
            continue
        if waiting >= kept / 2:
            why = "what waits longer is deleted, and never done"
            yield problem(f"{what}, and the oldest waits for {format_duration(round(waiting))}", why, change)
        elif kept < 86400.0:
            yield warning(what, "when workers are away for longer, tasks are deleted that nobody has done", change)
    for size, place in setup.numbers("topic.retention_bytes"):
        if size >= 0:
            yield warning(
                f"{place} keeps {size:.0f} bytes of each partition, done or not",
                "a backlog that is larger loses its oldest tasks",
                f"{_ALTER} retention.bytes=-1",
            )


def _cleanup(setup: Setup) -> Iterator[Finding]:
    for fact in setup.all("topic.cleanup"):
        if "compact" in str(fact.value):
            yield problem(
                f"{fact.place} has cleanup.policy={fact.value}",
                "of tasks with the same key only the last one is kept, done or not",
                f"{_ALTER} cleanup.policy=delete",
            )
    for fact in setup.all("topic.unclean"):
        if fact.value is True:
            yield warning(
                f"{fact.place} has unclean.leader.election.enable=true",
                "a broker that lags behind may take over, and what it lacks is lost although it was confirmed",
                f"{_ALTER} unclean.leader.election.enable=false",
            )


def _offsets(setup: Setup) -> Iterator[Finding]:
    kept = setup.number("broker.offsets_retention")
    if kept is not None and kept < _WEEK:
        yield warning(
            f"the brokers forget how far a group is {format_duration(kept)} after its last consumer has gone",
            "workers that were away for longer do everything again that the topic still has",
            "offsets.retention.minutes=10080 or more on the brokers",
        )


def _partitions(setup: Setup) -> Iterator[Finding]:
    wanted = setup.options.processes if setup.options else 1
    for there, place in setup.numbers("topic.partitions"):
        if there < wanted and place == f"topic {setup.topic}":
            yield warning(
                f"{place} has {there:g} partitions, and --processes is {wanted}",
                "each partition goes to one consumer: the others get nothing",
                f"kafka-topics.sh --alter --topic {setup.topic} --partitions {wanted}",
            )


def _missing(setup: Setup) -> Iterator[Finding]:
    creates = next((fact.value for fact in setup.all("option.create")), True)
    for fact in setup.all("topic.exists"):
        if fact.value is False and creates is False:
            what = "dead letters" if fact.place == f"topic {setup.dead_topic}" else "messages"
            yield problem(
                f"{fact.place} does not exist, and the URL says create=false",
                f"{what} cannot be published there: the tasks they are about are never settled",
                f"kafka-topics.sh --create --{fact.place}",
            )


CHECKS = (
    Check(
        "kafka-session",
        "Do the brokers take the session time of the URL?",
        _session,
        ("fact:broker.max_session",),
        ("kafka",),
    ),
    Check(
        "kafka-handover",
        "Do tasks survive that an instance joins or leaves?",
        _handover,
        ("fact:option.handover", "durations"),
        ("kafka",),
    ),
    Check(
        "kafka-replicas",
        "How many brokers have each task?",
        _replicas,
        ("fact:topic.replicas", "fact:topic.min_in_sync"),
        ("kafka",),
    ),
    Check(
        "kafka-retention",
        "Are tasks deleted before they are done?",
        _retention,
        ("fact:topic.retention", "queues"),
        ("kafka",),
    ),
    Check("kafka-cleanup", "Does a topic lose messages?", _cleanup, ("fact:topic.cleanup",), ("kafka",)),
    Check(
        "kafka-offsets",
        "Is it remembered how far groups are?",
        _offsets,
        ("fact:broker.offsets_retention",),
        ("kafka",),
    ),
    Check("kafka-partitions", "Has every process a partition?", _partitions, ("fact:topic.partitions",), ("kafka",)),
    Check("kafka-topics", "Is every topic there that cannot be made?", _missing, ("fact:topic.exists",), ("kafka",)),
)
