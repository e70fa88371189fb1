"""Every check of the doctor fires on a bad setup and is silent on a good one."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from apps.doctor.finding import Severity
from apps.doctor.registry import CHECKS, examine
from apps.doctor.setup import Durations, Limits, Queue, Setup, Status
from bus import Capabilities, Depth, Durability, parse_url
from bus.facts import Fact, unknown
from task.options import WorkerOptions

P, W, N = Severity.PROBLEM, Severity.WARNING, Severity.NOTE


def took(seconds: float) -> Durations:
    return Durations(seconds, seconds, seconds, 100, "of 100 done tasks")


def told(**metrics: float) -> Status:
    return Status("http://127.0.0.1:1", {}, metrics)


def facts(place: str = "here", **values: Any) -> tuple[Fact, ...]:
    return tuple(Fact(name.replace("__", "."), value, place) for name, value in values.items())


def able(**changes: Any) -> Capabilities:
    return dataclasses.replace(
        Capabilities(durability=Durability.D2, processes=True, lease=True, attempts=True, nack_delay=float("inf")),
        **changes,
    )


def queue(first: Depth, second: Depth, oldest: float | None = None) -> Queue:
    return Queue("t", "g", first, second, 1.0, oldest)


STREAM = {"storage": "file", "discard": "new", "retention": "interest"}
SQLITE, NATS, NSQ = parse_url("sqlite:work.db"), parse_url("nats://h"), parse_url("nsq://h")
KAFKA, PUBSUB = parse_url("kafka://h"), parse_url("pubsub://p")


def stream(**changes: Any) -> tuple[Fact, ...]:
    values = STREAM | {"max_age": 0.0, "max_bytes": -1, "bytes": 10, "duplicate_window": 120.0} | changes
    return facts(**{f"stream__{name}": value for name, value in values.items()})


def topic(**changes: Any) -> tuple[Fact, ...]:
    values: dict[str, Any] = {"exists": True, "replicas": 3, "in_sync": 3, "min_in_sync": 2, "partitions": 8}
    values |= {"cleanup": "delete", "retention": 604800.0, "retention_bytes": -1, "unclean": False}
    return facts("topic t", **{f"topic__{name}": value for name, value in (values | changes).items()})


#: Name of the check, severity, the bad setup and the good one, as what differs from an empty setup.
CASES: list[tuple[str, Severity, dict[str, Any], dict[str, Any]]] = [
    ("bus", P, {"url": NATS, "troubles": {"bus": "refused"}}, {"url": NATS}),
    ("durability", P, {"capabilities": able(durability=Durability.D0)}, {"capabilities": able()}),
    ("durability", N, {"capabilities": able(durability=Durability.D1)}, {"capabilities": able()}),
    ("ack", W, {"options": WorkerOptions(ack="on-receipt")}, {"options": WorkerOptions()}),
    ("attempts", W, {"capabilities": able(attempts=False)}, {"capabilities": able()}),
    (
        "retry-delay",
        W,
        {"options": WorkerOptions(retries=20), "capabilities": able(nack_delay=600.0)},
        {"options": WorkerOptions(retries=20, retry_max_delay=500.0), "capabilities": able(nack_delay=600.0)},
    ),
    (
        "lease-ceiling",
        P,
        {"capabilities": able(lease_ceiling=900.0), "durations": took(1000)},
        {"capabilities": able(lease_ceiling=900.0), "durations": took(10)},
    ),
    (
        "lease-ceiling",
        W,
        {"capabilities": able(lease_ceiling=900.0), "durations": took(600)},
        {"capabilities": able(lease_ceiling=None), "durations": took(600)},
    ),
    ("lease-short", W, {"facts": facts(lease=1.0)}, {"facts": facts(lease=30.0)}),
    ("lease-lost", W, {"status": told(taskbus_lease_lost_total=2)}, {"status": told(taskbus_lease_lost_total=0)}),
    ("timeout-none", N, {"options": WorkerOptions()}, {"options": WorkerOptions(timeout=5)}),
    (
        "timeout-short",
        W,
        {"options": WorkerOptions(timeout=10), "durations": took(9)},
        {"options": WorkerOptions(timeout=10), "durations": took(3)},
    ),
    (
        "grace",
        P,
        {"options": WorkerOptions(kill_time=30), "limits": Limits(grace=30, source="x")},
        {"options": WorkerOptions(kill_time=10), "limits": Limits(grace=30, source="x")},
    ),
    (
        "grace",
        W,
        {"options": WorkerOptions(kill_time=28), "limits": Limits(grace=30, source="x")},
        {"options": WorkerOptions(kill_time=25), "limits": Limits(grace=30, source="x")},
    ),
    (
        "kill-time",
        W,
        {"options": WorkerOptions(kill_time=10), "durations": took(20)},
        {"options": WorkerOptions(kill_time=10), "durations": took(2)},
    ),
    ("ready", P, {"status": dataclasses.replace(told(), not_ready="draining")}, {"status": told()}),
    ("stalls", W, {"status": told(taskbus_stalls_total=1)}, {"status": told()}),
    ("settle-errors", W, {"status": told(taskbus_publish_errors_total=1)}, {"status": told()}),
    (
        "open-files",
        P,
        {"status": told(process_open_fds=900, process_max_fds=1024)},
        {"status": told(process_open_fds=90, process_max_fds=1024)},
    ),
    (
        "open-files",
        W,
        {"status": told(process_open_fds=600, process_max_fds=1024)},
        {"status": told(process_open_fds=90, process_max_fds=1024)},
    ),
    ("open-files", W, {"limits": Limits(files=256)}, {"limits": Limits(files=65536)}),
    (
        "memory",
        P,
        {"status": told(process_resident_memory_bytes=9e8), "limits": Limits(memory=1e9)},
        {"status": told(process_resident_memory_bytes=1e8), "limits": Limits(memory=1e9)},
    ),
    (
        "memory",
        W,
        {
            "status": told(process_resident_memory_bytes=1e8, taskbus_process_resident_memory_bytes=5e8),
            "limits": Limits(memory=1e9),
        },
        {
            "status": told(process_resident_memory_bytes=1e8, taskbus_process_resident_memory_bytes=1e8),
            "limits": Limits(memory=1e9),
        },
    ),
    ("dead-letters", W, {"dead": 3, "dead_topic": "t.dead"}, {"dead": 0}),
    ("backlog", W, {"queues": (queue(Depth(100), Depth(150)),)}, {"queues": (queue(Depth(150), Depth(100)),)}),
    ("backlog", W, {"queues": (queue(Depth(100), Depth(150)),)}, {"queues": (queue(Depth(1), Depth(2)),)}),
    ("idle", W, {"queues": (queue(Depth(5), Depth(5), 900.0),)}, {"queues": (queue(Depth(5), Depth(5), 1.0),)}),
    (
        "idle",
        W,
        {"queues": (queue(Depth(5), Depth(5), 900.0),)},
        {"queues": (queue(Depth(5, in_flight=1), Depth(5), 900.0),)},
    ),
    ("done-unread", W, {"unread_done": 100_000}, {"unread_done": 5}),
    ("clock", P, {"url": NATS, "facts": facts(clock__ahead=-100.0)}, {"url": NATS, "facts": facts(clock__ahead=0.1)}),
    ("clock", W, {"url": NATS, "facts": facts(clock__ahead=5.0)}, {"url": NATS, "facts": facts(clock__ahead=-0.7)}),
    ("file-system", P, {"url": SQLITE, "facts": facts(file__system="nfs4")}, {"facts": facts(file__system="ext4")}),
    ("file-system", W, {"url": SQLITE, "facts": facts(file__system="tmpfs")}, {"facts": facts(file__system="xfs")}),
    (
        "file-sync",
        N,
        {"url": SQLITE, "facts": facts(file__exists=True, option__synchronous="normal")},
        {"facts": facts(file__exists=True, option__synchronous="full", file__journal="wal")},
    ),
    (
        "file-sync",
        P,
        {"url": SQLITE, "facts": facts(file__exists=True, file__journal="off")},
        {"facts": facts(file__exists=True, option__sync=True)},
    ),
    ("disk-room", P, {"url": SQLITE, "facts": facts(file__free=10**6)}, {"facts": facts(file__free=10**11)}),
    ("disk-room", W, {"url": SQLITE, "facts": facts(file__free=500 * 2**20)}, {"facts": facts(file__free=10**11)}),
    (
        "nats-sync",
        W,
        {"url": NATS, "facts": facts(server__sync_interval=120.0, stream__replicas=1)},
        {"facts": facts(server__sync_interval=0.0, stream__replicas=1)},
    ),
    (
        "nats-sync",
        N,
        {"url": NATS, "facts": facts(server__sync_interval=120.0, stream__replicas=3)},
        {"facts": facts(server__sync_interval=0.0, stream__replicas=3)},
    ),
    (
        "nats-replicas",
        P,
        {"url": NATS, "facts": facts(stream__replicas=3, stream__current=2)},
        {"facts": facts(stream__replicas=3, stream__current=3)},
    ),
    (
        "nats-replicas",
        N,
        {"url": NATS, "facts": facts(stream__replicas=1, stream__current=1)},
        {"facts": facts(stream__replicas=3, stream__current=3)},
    ),
    ("nats-stream", P, {"url": NATS, "facts": stream(storage="memory")}, {"facts": stream()}),
    ("nats-stream", P, {"url": NATS, "facts": stream(discard="old")}, {"facts": stream()}),
    ("nats-stream", P, {"url": NATS, "facts": stream(retention="limits")}, {"facts": stream()}),
    ("nats-stream", P, {"url": NATS, "facts": stream(max_age=60.0, oldest=time.time() - 50)}, {"facts": stream()}),
    ("nats-stream", W, {"url": NATS, "facts": stream(max_bytes=10)}, {"facts": stream(max_bytes=1000)}),
    ("nats-stream", W, {"url": NATS, "facts": stream(duplicate_window=5.0)}, {"facts": stream()}),
    (
        "nats-consumer",
        P,
        {"url": NATS, "facts": facts(consumer__max_deliver=5)},
        {"facts": facts(consumer__max_deliver=-1)},
    ),
    (
        "nats-consumer",
        P,
        {
            "url": NATS,
            "options": WorkerOptions(max_in_progress=20),
            "facts": facts(consumer__max_deliver=-1, consumer__max_ack_pending=10),
        },
        {"facts": facts(consumer__max_deliver=-1, consumer__max_ack_pending=-1)},
    ),
    (
        "nats-consumer",
        W,
        {"url": NATS, "facts": facts(consumer__max_deliver=-1, consumer__max_ack_pending=10)},
        {"facts": facts(consumer__max_deliver=-1, consumer__max_ack_pending=-1)},
    ),
    (
        "nsq-lease",
        P,
        {"url": NSQ, "facts": facts(option__max_lease=900.0, nsqd__max_msg_timeout=60.0)},
        {"facts": facts(option__max_lease=900.0, nsqd__max_msg_timeout=900.0)},
    ),
    (
        "nsq-memory",
        W,
        {"url": NSQ, "facts": facts(nsqd__mem_queue_size=10_000.0)},
        {"facts": facts(nsqd__mem_queue_size=0.0)},
    ),
    (
        "nsq-channel",
        W,
        {"url": NSQ, "facts": facts(channel__timeouts=2, channel__paused=False)},
        {"facts": facts(channel__timeouts=0, channel__paused=False)},
    ),
    (
        "nsq-channel",
        P,
        {"url": NSQ, "facts": facts(channel__timeouts=0, channel__paused=True)},
        {"facts": facts(channel__timeouts=0, channel__paused=False)},
    ),
    (
        "pubsub",
        W,
        {"url": PUBSUB, "facts": facts(subscription__exists=True, option__emulated=True)},
        {"facts": facts(subscription__exists=True, option__emulated=False)},
    ),
    (
        "pubsub",
        W,
        {"url": PUBSUB, "facts": facts(subscription__exists=True, subscription__retention=600.0)},
        {"facts": facts(subscription__exists=True, subscription__retention=604800.0)},
    ),
    (
        "pubsub",
        W,
        {"url": PUBSUB, "facts": facts(subscription__exists=True, subscription__expires=2678400.0)},
        {"facts": facts(subscription__exists=True, subscription__expires=-1.0)},
    ),
    (
        "pubsub",
        N,
        {"url": PUBSUB, "facts": facts(subscription__exists=False)},
        {"facts": facts(subscription__exists=True)},
    ),
    (
        "kafka-session",
        P,
        {"url": KAFKA, "facts": facts(option__session=3600.0, broker__max_session=1800.0)},
        {"facts": facts(option__session=10.0, broker__max_session=1800.0)},
    ),
    (
        "kafka-handover",
        W,
        {"url": KAFKA, "durations": took(90), "facts": facts(option__handover=30.0, option__stall=300.0)},
        {"durations": took(9), "facts": facts(option__handover=30.0, option__stall=300.0)},
    ),
    ("kafka-replicas", P, {"url": KAFKA, "facts": topic(in_sync=1)}, {"facts": topic()}),
    ("kafka-replicas", W, {"url": KAFKA, "facts": topic(in_sync=2)}, {"facts": topic()}),
    ("kafka-replicas", W, {"url": KAFKA, "facts": topic(min_in_sync=1)}, {"facts": topic()}),
    ("kafka-replicas", W, {"url": KAFKA, "facts": topic(min_in_sync=3)}, {"facts": topic()}),
    ("kafka-replicas", N, {"url": KAFKA, "facts": topic(replicas=1, in_sync=1, min_in_sync=1)}, {"facts": topic()}),
    (
        "kafka-retention",
        P,
        {"url": KAFKA, "queues": (queue(Depth(1), Depth(1), 4e5),), "facts": topic()},
        {"queues": (queue(Depth(1), Depth(1), 4e3),), "facts": topic()},
    ),
    (
        "kafka-retention",
        W,
        {"url": KAFKA, "queues": (), "facts": topic(retention=3600.0)},
        {"queues": (), "facts": topic(retention=-1.0)},
    ),
    (
        "kafka-retention",
        W,
        {"url": KAFKA, "queues": (), "facts": topic(retention_bytes=10)},
        {"queues": (), "facts": topic()},
    ),
    ("kafka-cleanup", P, {"url": KAFKA, "facts": topic(cleanup="compact,delete")}, {"facts": topic()}),
    ("kafka-cleanup", W, {"url": KAFKA, "facts": topic(unclean=True)}, {"facts": topic()}),
    (
        "kafka-offsets",
        W,
        {"url": KAFKA, "facts": facts(broker__offsets_retention=3600.0)},
        {"facts": facts(broker__offsets_retention=604800.0)},
    ),
    (
        "kafka-partitions",
        W,
        {"url": KAFKA, "topic": "t", "options": WorkerOptions(processes=9), "facts": topic()},
        {"topic": "t", "options": WorkerOptions(processes=8), "facts": topic()},
    ),
    (
        "kafka-topics",
        P,
        {"url": KAFKA, "facts": (*topic(exists=False), Fact("option.create", False, "the URL"))},
        {"facts": (*topic(exists=False), Fact("option.create", True, "the URL"))},
    ),
]


@pytest.mark.parametrize(("name", "severity", "bad", "good"), CASES)
def test_it_fires_on_the_bad_and_not_on_the_good(
    name: str, severity: Severity, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    """A bad setup gives a finding of this severity that says why and what to change; a good one gives none."""
    (check,) = [check for check in CHECKS if check.name == name]

    (made,) = examine(Setup(**bad), [check])
    assert [finding.severity for finding in made.findings] == [severity]
    assert all(finding.why and finding.change for finding in made.findings)

    (fine,) = examine(Setup(**({"url": bad["url"]} if "url" in bad else {}) | good), [check])
    assert fine.findings == ()


def test_every_check_has_a_case() -> None:
    """No check is in the registry without a setup on which it fires; `servers` only tells what could not be asked."""
    assert {check.name for check in CHECKS} == {name for name, *_ in CASES} | {"servers"}
    assert len({check.name for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("scheme", ["sqlite", "file", "nats", "nsq", "kafka", "pubsub"])
def test_nothing_passes_that_could_not_be_checked(scheme: str) -> None:
    """With nothing known but the kind of bus, and its servers silent, every check says that it was not made."""
    setup = Setup(url=parse_url(f"{scheme}:x" if scheme in ("sqlite", "file") else f"{scheme}://x"))
    setup = dataclasses.replace(setup, troubles={"facts": "the servers cannot be asked: silence"})

    for check, findings in examine(setup):
        # Of this one the answer is known: nothing says that the bus cannot be used.
        if check.name != "bus":
            assert [finding.severity for finding in findings] == [Severity.UNCHECKED], check.name


def test_what_a_server_does_not_tell_is_told() -> None:
    """The reason why a fact could not be had is that of the unchecked finding."""
    setup = Setup(url=NATS, facts=(unknown("server.sync_interval", "the server", "give --monitor"),))

    told = {made.check.name: made.findings for made in examine(setup)}

    assert told["nats-sync"][0].severity is Severity.UNCHECKED
    assert "give --monitor" in told["nats-sync"][0].what


def test_what_is_not_there_yet_is_not_called_fine() -> None:
    """A stream that nobody has made is no stream without faults."""
    told = {made.check.name: made.findings for made in examine(Setup(url=NATS, facts=facts(stream__exists=False)))}

    assert "not there yet" in told["nats-replicas"][0].what
    assert "not there yet" in told["nats-stream"][0].what


def test_an_adapter_that_tells_nothing_is_told() -> None:
    """A third party's adapter without facts is no server without faults."""
    setup = Setup(url=parse_url("other:x"), capabilities=able(), facts=())

    told = {made.check.name: made.findings for made in examine(setup)}

    assert [finding.severity for finding in told["servers"]] == [Severity.UNCHECKED]
