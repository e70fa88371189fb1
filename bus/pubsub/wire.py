"""The calls of Pub/Sub, each with its request and answer.

https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bus.pubsub.messages import message

__all__ = [
    "ACKNOWLEDGE",
    "CREATE_SUBSCRIPTION",
    "CREATE_TOPIC",
    "DELETE_SUBSCRIPTION",
    "DELETE_TOPIC",
    "GET_SUBSCRIPTION",
    "GET_TOPIC",
    "LIST_SUBSCRIPTIONS",
    "LIST_TOPICS",
    "MODIFY_ACK_DEADLINE",
    "PUBLISH",
    "PULL",
    "Method",
    "PubsubMessage",
]


class Method(NamedTuple):
    """One remote procedure. ``route`` is the field by which Google routes it."""

    path: str
    request: Any
    answer: Any
    route: str


def _method(service: str, name: str, route: str, *, request: str = "", answer: str = "Empty") -> Method:
    return Method(f"/google.pubsub.v1.{service}/{name}", message(request or f"{name}Request"), message(answer), route)


PubsubMessage: Any = message("PubsubMessage")

CREATE_TOPIC = _method("Publisher", "CreateTopic", "name", request="Topic", answer="Topic")
GET_TOPIC = _method("Publisher", "GetTopic", "topic", answer="Topic")
DELETE_TOPIC = _method("Publisher", "DeleteTopic", "topic")
LIST_TOPICS = _method("Publisher", "ListTopics", "project", answer="ListTopicsResponse")
LIST_SUBSCRIPTIONS = _method("Publisher", "ListTopicSubscriptions", "topic", answer="ListTopicSubscriptionsResponse")
PUBLISH = _method("Publisher", "Publish", "topic", answer="PublishResponse")
CREATE_SUBSCRIPTION = _method("Subscriber", "CreateSubscription", "name", request="Subscription", answer="Subscription")
GET_SUBSCRIPTION = _method("Subscriber", "GetSubscription", "subscription", answer="Subscription")
DELETE_SUBSCRIPTION = _method("Subscriber", "DeleteSubscription", "subscription")
PULL = _method("Subscriber", "Pull", "subscription", answer="PullResponse")
ACKNOWLEDGE = _method("Subscriber", "Acknowledge", "subscription")
MODIFY_ACK_DEADLINE = _method("Subscriber", "ModifyAckDeadline", "subscription")
