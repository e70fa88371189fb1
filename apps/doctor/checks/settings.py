"""Settings of a worker that do not fit its bus."""

from __future__ import annotations

from collections.abc import Iterator

from apps.doctor.finding import Check, Finding, note, problem, unchecked, warning
from apps.doctor.setup import Setup
from bus import Durability
from bus.units import format_duration
from task.retry import Backoff

__all__ = ["CHECKS"]


def _reachable(setup: Setup) -> Iterator[Finding]:
    if trouble := setup.troubles.get("bus"):
        yield problem(f"the bus cannot be used: {trouble}", "no task is received or done", "what the message says")


def _facts(setup: Setup) -> Iterator[Finding]:
    if trouble := setup.troubles.get("facts"):
        yield unchecked(trouble)
    elif setup.facts is not None and not setup.facts and setup.capabilities and setup.capabilities.processes:
        yield unchecked(f"the {setup.scheme} adapter tells nothing of its servers")


def _durability(setup: Setup) -> Iterator[Finding]:
    if setup.capabilities is None or setup.capabilities.finite:
        return
    tier = setup.capabilities.durability
    if tier == Durability.D0:
        yield problem(
            f"a confirmed task on the {setup.scheme} bus is lost with the process ({tier.name})",
            "every restart loses what is waiting",
            "use another bus for tasks that matter: sqlite:work.db for one machine",
        )
    elif tier == Durability.D1:
        yield note(
            f"a confirmed task on the {setup.scheme} bus survives a clean restart of the server only ({tier.name})",
            "kill -9, a full memory or a power loss of the server loses what it held in memory",
            "start nsqd with --mem-queue-size=0, which keeps nearly all on disk, or use nats or kafka",
        )


def _ack(setup: Setup) -> Iterator[Finding]:
    if setup.options and setup.options.ack == "on-receipt":
        yield warning(
            "tasks are acknowledged when they are received (ack = on-receipt)",
            "a worker that is killed or crashes loses every task it holds",
            "--ack on-done, and see with `taskbus certify` whether the worker bears a task twice",
        )


def _attempts(setup: Setup) -> Iterator[Finding]:
    if setup.capabilities is None or not setup.capabilities.lease or setup.capabilities.attempts:
        return
    change = "leave max_attempts=0 out of the URL" if setup.scheme == "pubsub" else "use a bus that counts attempts"
    yield warning(
        f"the {setup.scheme} bus does not count deliveries as it is set up",
        "a task that kills its worker comes again without end, and --retries does not end either",
        change,
    )


def _retry_delay(setup: Setup) -> Iterator[Finding]:
    options, can = setup.options, setup.capabilities
    if options is None or can is None or not options.retries or options.delay_topic is not None:
        return
    backoff = Backoff(options.retry_backoff, options.retry_delay, options.retry_max_delay, jitter=False)
    longest, most = max(backoff.delay(attempt) for attempt in range(1, options.retries + 1)), can.nack_delay or 0.0
    if longest > most:
        able = f"delays by {format_duration(most)} at most" if most else "cannot delay"
        yield warning(
            f"retries are to wait up to {format_duration(longest)}, and the {setup.scheme} bus {able}",
            "the tasks come back sooner, and use up their retries while the trouble lasts",
            "run `taskbus taskmaster delay` and give --delay-topic its topic, or lower --retry-max-delay",
        )


CHECKS = (
    Check("bus", "Can the bus be used?", _reachable, ("url",)),
    Check("servers", "Do the servers answer questions?", _facts, ("url",)),
    Check("durability", "Does a confirmed task survive?", _durability, ("capabilities",)),
    Check("ack", "Is a task acknowledged only when it is done?", _ack, ("options",)),
    Check(
        "attempts", "Are deliveries counted, so that a task that kills its worker ends?", _attempts, ("capabilities",)
    ),
    Check("retry-delay", "Can retries wait as long as they are to?", _retry_delay, ("options", "capabilities")),
)
