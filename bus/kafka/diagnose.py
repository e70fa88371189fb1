"""What Kafka's brokers tell of topics and of themselves: see :mod:`bus.facts`.

``option.*``: session, handover and stall of the URL, in seconds, and create. Of each topic ``topic.exists``,
``.replicas`` and ``.in_sync`` (the fewest of any partition), ``.partitions``, ``.min_in_sync``, ``.cleanup`` (its
policy), ``.retention`` (seconds; -1 = for ever), ``.retention_bytes`` (-1 = unbounded), ``.unclean`` (whether a replica
that lags behind may lead). Of the brokers ``broker.count``, ``broker.max_session`` and ``broker.offsets_retention``
(seconds). https://kafka.apache.org/documentation/#topicconfigs and #brokerconfigs

Kafka does not tell its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from bus.errors import BusError
from bus.facts import Fact, Look, unknown
from bus.kafka.names import retry_topic
from bus.kafka.options import KafkaOptions
from bus.kafka.store import Store

__all__ = ["diagnose"]

_OPTIONS = ("session", "handover", "stall", "create")


async def diagnose(store: Store, options: KafkaOptions, look: Look) -> list[Fact]:
    """The facts of the topics that ``look`` names, and of their groups' retry topics. Raises BusError."""
    facts = [
        *(
            Fact(f"option.{name}", getattr(options, name), "the URL")
            for name in ("session", "handover", "stall", "create")
        ),
        unknown("clock.ahead", store.where, "Kafka does not tell its time"),
    ]
    names: dict[str, bool] = {}
    for topic, group in look.topics:
        names[topic] = True
        if group is not None:
            names.setdefault(retry_topic(topic, group), False)
    found = await store.run(lambda: store.client().list_topics(timeout=options.timeout), "looking at topics")
    facts.append(Fact("broker.count", len(found.brokers), store.where))
    for name, wanted in names.items():
        if name in found.topics:
            partitions = found.topics[name].partitions.values()
            place = f"topic {name}"
            facts += [
                Fact("topic.exists", True, place),
                Fact("topic.partitions", len(partitions), place),
                Fact("topic.replicas", min(len(each.replicas) for each in partitions), place),
                Fact("topic.in_sync", min(len(each.isrs) for each in partitions), place),
                *await _topic(store, options, name, place),
            ]
        elif wanted:
            facts.append(Fact("topic.exists", False, f"topic {name}"))
    return facts + await _broker(store, options, next(iter(found.brokers)))


async def _topic(store: Store, options: KafkaOptions, name: str, place: str) -> list[Fact]:
    try:
        config = await _config(store, options, ConfigResource(ResourceType.TOPIC, name))
        return [
            Fact("topic.min_in_sync", int(config["min.insync.replicas"]), place),
            Fact("topic.cleanup", config["cleanup.policy"], place),
            Fact("topic.retention", _seconds(config["retention.ms"]), place),
            Fact("topic.retention_bytes", int(config["retention.bytes"]), place),
            Fact("topic.unclean", config["unclean.leader.election.enable"] == "true", place),
        ]
    except (BusError, KeyError) as error:
        return [unknown("topic.retention", place, error), unknown("topic.min_in_sync", place, error)]


async def _broker(store: Store, options: KafkaOptions, number: int) -> list[Fact]:
    place = f"broker {number}"
    try:
        config = await _config(store, options, ConfigResource(ResourceType.BROKER, str(number)))
        return [
            Fact("broker.max_session", _seconds(config["group.max.session.timeout.ms"]), place),
            Fact("broker.offsets_retention", int(config["offsets.retention.minutes"]) * 60.0, place),
        ]
    except (BusError, KeyError) as error:
        return [unknown("broker.max_session", place, error), unknown("broker.offsets_retention", place, error)]


async def _config(store: Store, options: KafkaOptions, resource: ConfigResource) -> Mapping[str, str]:
    def ask() -> Mapping[str, str]:
        client: AdminClient = store.client()
        (future,) = client.describe_configs([resource], request_timeout=options.timeout).values()
        try:
            entries: dict[str, Any] = future.result(options.timeout + 5.0)
        except TimeoutError as error:
            raise KafkaException(f"no answer within {options.timeout:g} s") from error
        return {name: str(entry.value) for name, entry in entries.items()}

    return await store.run(ask, f"looking at the settings of {resource.name}")


def _seconds(milliseconds: str) -> float:
    number = int(milliseconds)
    return number / 1000 if number >= 0 else -1.0
