"""What servers are told to do with what they hold: NATS, NSQ and Pub/Sub."""

from __future__ import annotations

import time
from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, note, problem, warning
from apps.doctor.setup import Setup
from bus.units import format_duration

__all__ = ["CHECKS"]

#: Seconds.
_DAY, _MINUTE = 86400.0, 60.0
#: Share of a limit.
_NEAR = 0.8


def _nats_sync(setup: Setup) -> Iterator[Finding]:
    interval = setup.number("server.sync_interval")
    if not interval:
        return
    copies = setup.number("stream.replicas") or setup.number("option.replicas") or 1
    what = f"the server syncs its disk every {format_duration(interval)}, not at every message"
    change = "sync_interval: always in the jetstream block of the server's configuration"
    if copies < 3:
        why = f"a power loss of the server loses up to {format_duration(interval)} of confirmed tasks"
        yield warning(what, why, f"{change}, or replicas=3 in the URL of a new prefix")
    else:
        yield note(what, "a power loss of most servers at once loses what was confirmed since", change)


def _nats_replicas(setup: Setup) -> Iterator[Finding]:
    for copies, place in setup.numbers("stream.replicas"):
        current = next((value for value, where in setup.numbers("stream.current") if where == place), copies)
        if current < copies:
            yield problem(
                f"{place}: {current:g} of {copies:g} replicas are up to date",
                "the loss of another server stops the topic, or loses what only that server had",
                "see with `nats stream info` which server is away, and bring it back",
            )
        elif copies == 1:
            yield note(
                f"{place} has one replica",
                "while its server is away nothing is received or sent, and with its disk all tasks are lost",
                "a cluster of three servers, and replicas=3 in the URL with another prefix, or "
                "`nats stream edit --replicas 3`",
            )


def _nats_stream(setup: Setup) -> Iterator[Finding]:
    made_anew = "delete the stream when it is empty, and the worker makes it right; or `nats stream edit`"
    for name, wanted, why in (
        ("storage", "file", "a restart of the server loses every task"),
        ("discard", "new", "when the stream is full the oldest tasks are dropped, not the new ones refused"),
        ("retention", "interest", "tasks are kept or dropped otherwise than groups need it; workers refuse to start"),
    ):
        for fact in setup.all(f"stream.{name}"):
            if fact.value != wanted:
                yield problem(f"{fact.place} has {name} {fact.value}, not {wanted}", why, made_anew)
    for most, place in setup.numbers("stream.max_age"):
        if most > 0:
            oldest = next((value for value, where in setup.numbers("stream.oldest") if where == place), time.time())
            age = max(0.0, time.time() - oldest)
            yield problem(
                f"{place} has max_age {format_duration(most)}; its oldest message is {format_duration(round(age))} old",
                "a task that waits longer is dropped unseen; workers refuse to start",
                "`nats stream edit --max-age 0`",
            )
    for most, place in setup.numbers("stream.max_bytes"):
        used = next((value for value, where in setup.numbers("stream.bytes") if where == place), 0.0)
        if most > 0 and used >= _NEAR * most:
            yield warning(
                f"{place} holds {used:.0f} of at most {most:.0f} bytes",
                "when it is full, publishing is refused and tried again until there is room",
                "more workers, or `nats stream edit --max-bytes`",
            )
    for window, place in setup.numbers("stream.duplicate_window"):
        if window < _MINUTE:
            yield warning(
                f"{place} knows a repeated message for {format_duration(window)} only",
                "what is published again after a fault is stored twice",
                "`nats stream edit --dupe-window 2m`",
            )


def _nats_consumer(setup: Setup) -> Iterator[Finding]:
    slots = setup.options.max_in_progress * setup.options.processes if setup.options else 1
    for most, place in setup.numbers("consumer.max_ack_pending"):
        if most > 0:
            yield (problem if most < slots else warning)(
                f"{place}: at most {most:g} messages may be in flight (max_ack_pending); one worker here takes {slots}",
                "workers beyond that number receive nothing, however much waits; workers refuse to start",
                "`nats consumer edit --max-pending -1`, or delete the consumer when it is done with all",
            )
    for most, place in setup.numbers("consumer.max_deliver"):
        if most > 0:
            yield problem(
                f"{place}: a message is delivered {most:g} times at most (max_deliver)",
                "after that it stays in the stream unseen, neither done nor a dead letter; workers refuse to start",
                "`nats consumer edit --max-deliver -1`: --max-attempts of the worker gives up in order",
            )


def _nsq_lease(setup: Setup) -> Iterator[Finding]:
    assumed = setup.number("option.max_lease")
    for most, place in setup.numbers("nsqd.max_msg_timeout"):
        if assumed is not None and most < assumed:
            yield problem(
                f"{place} has --max-msg-timeout={format_duration(most)}, the URL says max_lease="
                f"{format_duration(assumed)}",
                "the worker refuses to use it",
                f"--max-msg-timeout={format_duration(assumed)}, or max_lease={format_duration(most)} in the URL",
            )


def _nsq_memory(setup: Setup) -> Iterator[Finding]:
    for most, place in setup.numbers("nsqd.mem_queue_size"):
        if most > 0:
            yield warning(
                f"{place} keeps up to {most:.0f} messages of each topic and channel in memory only",
                "kill -9 or a power loss of nsqd loses all of them",
                "start nsqd with --mem-queue-size=0",
            )


def _nsq_channel(setup: Setup) -> Iterator[Finding]:
    for fact in setup.all("channel.timeouts"):
        if isinstance(fact.value, (int, float)) and fact.value > 0:
            yield warning(
                f"{fact.place}: {fact.value:g} leases ran out since nsqd was started",
                "each of these tasks was given to another worker, perhaps while the first still did it",
                "if no worker was killed: a longer lease in the URL, --isolation process, smaller tasks",
            )
    for fact in setup.all("channel.paused"):
        if fact.value:
            yield problem(
                f"{fact.place} is paused",
                "nobody is given its tasks",
                "unpause the channel and its topic in nsqadmin, or by POST /channel/unpause of nsqd",
            )


def _pubsub(setup: Setup) -> Iterator[Finding]:
    if any(fact.value for fact in setup.all("option.emulated")):
        yield warning(
            "the URL names an emulator",
            "it keeps everything in memory: a restart loses all tasks",
            "leave the option emulator out, and unset PUBSUB_EMULATOR_HOST",
        )
    for kept, place in setup.numbers("subscription.retention"):
        if kept < _DAY:
            yield warning(
                f"{place} keeps what nobody takes for {format_duration(kept)}",
                "when workers are away for longer, tasks are dropped unseen",
                "`gcloud pubsub subscriptions update --message-retention-duration=7d`, and retention=7d in the URL",
            )
    for after, place in setup.numbers("subscription.expires"):
        if after > 0:
            yield warning(
                f"{place} is deleted when nobody uses it for {format_duration(after)}",
                "with it goes everything it holds, and what is published then",
                "`gcloud pubsub subscriptions update --expiration-period=never`",
            )
    for fact in setup.all("subscription.exists"):
        if fact.value is False:
            yield note(f"{fact.place} does not exist", "nobody has worked as this group yet", "start the worker once")


CHECKS = (
    Check("nats-sync", "Is what was confirmed on the disk?", _nats_sync, ("fact:server.sync_interval",), ("nats",)),
    Check("nats-replicas", "How many servers have each task?", _nats_replicas, ("fact:stream.replicas",), ("nats",)),
    Check("nats-stream", "Does a stream drop tasks?", _nats_stream, ("fact:stream.storage",), ("nats",)),
    Check(
        "nats-consumer", "Does a consumer hold tasks back?", _nats_consumer, ("fact:consumer.max_deliver",), ("nats",)
    ),
    Check(
        "nsq-lease",
        "Do nsqd and the URL agree on the longest lease?",
        _nsq_lease,
        ("fact:nsqd.max_msg_timeout",),
        ("nsq",),
    ),
    Check("nsq-memory", "Is what was confirmed on the disk?", _nsq_memory, ("fact:nsqd.mem_queue_size",), ("nsq",)),
    Check(
        "nsq-channel", "Are tasks given out, and settled in time?", _nsq_channel, ("fact:channel.timeouts",), ("nsq",)
    ),
    Check("pubsub", "Does a subscription lose tasks?", _pubsub, ("fact:subscription.exists",), ("pubsub",)),
)
