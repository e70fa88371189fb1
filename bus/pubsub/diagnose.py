"""What Pub/Sub tells of the subscriptions of groups: see :mod:`bus.facts`.

``option.emulated``, ``lease``, and ``subscription.exists``, ``.retention`` (seconds it keeps what nobody takes),
``.expires`` (seconds without use after which it is deleted; -1 = never), ``.max_attempts`` (0 = no dead-letter policy).
https://cloud.google.com/pubsub/docs/subscription-properties
"""

from __future__ import annotations

from bus.facts import Fact, Look, unknown
from bus.pubsub.options import PubsubOptions
from bus.pubsub.store import Store

__all__ = ["diagnose"]


async def diagnose(store: Store, options: PubsubOptions, look: Look) -> list[Fact]:
    """The facts of the groups that ``look`` names. Raises BusError."""
    facts = [
        Fact("option.emulated", options.emulated, "the URL"),
        Fact("lease", options.lease, "the URL"),
        unknown("clock.ahead", "Pub/Sub", "Pub/Sub does not tell its time"),
    ]
    for topic, group in look.topics:
        if group is None:
            continue
        name, found = await store.look(topic, group)
        place = f"subscription {name.rpartition('/')[2]}"
        facts.append(Fact("subscription.exists", found is not None, place))
        if found is None:
            continue
        # Without a policy it expires after 31 days, which the service fills in; an empty one says never.
        forever = found.HasField("expiration_policy") and not found.expiration_policy.HasField("ttl")
        policy = found.dead_letter_policy
        facts += [
            Fact("subscription.retention", float(found.message_retention_duration.seconds), place),
            Fact("subscription.expires", -1.0 if forever else float(found.expiration_policy.ttl.seconds), place),
            Fact("subscription.max_attempts", policy.max_delivery_attempts if policy.dead_letter_topic else 0, place),
        ]
    return facts
