"""The requests and answers of Pub/Sub, as plain protocol buffers: the classes of the client library wrap each in
another object, which costs more than the request itself.

https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub

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


def _method(service: str, name: str, request: Any, answer: Any, route: str) -> Method:
    return Method(f"/google.pubsub.v1.{service}/{name}", request, answer, route)


_Topic: Any = pubsub.Topic.pb()
_Subscription: Any = pubsub.Subscription.pb()
PubsubMessage: Any = pubsub.PubsubMessage.pb()

CREATE_TOPIC = _method("Publisher", "CreateTopic", _Topic, _Topic, "name")
GET_TOPIC = _method("Publisher", "GetTopic", pubsub.GetTopicRequest.pb(), _Topic, "topic")
DELETE_TOPIC = _method("Publisher", "DeleteTopic", pubsub.DeleteTopicRequest.pb(), Empty, "topic")
LIST_TOPICS = _method(
    "Publisher", "ListTopics", pubsub.ListTopicsRequest.pb(), pubsub.ListTopicsResponse.pb(), "project"
)
LIST_SUBSCRIPTIONS = _method(
    "Publisher",
    "ListTopicSubscriptions",
    pubsub.ListTopicSubscriptionsRequest.pb(),
    pubsub.ListTopicSubscriptionsResponse.pb(),
    "topic",
)
PUBLISH = _method("Publisher", "Publish", pubsub.PublishRequest.pb(), pubsub.PublishResponse.pb(), "topic")
CREATE_SUBSCRIPTION = _method("Subscriber", "CreateSubscription", _Subscription, _Subscription, "name")
GET_SUBSCRIPTION = _method(
    "Subscriber", "GetSubscription", pubsub.GetSubscriptionRequest.pb(), _Subscription, "subscription"
)
DELETE_SUBSCRIPTION = _method(
    "Subscriber", "DeleteSubscription", pubsub.DeleteSubscriptionRequest.pb(), Empty, "subscription"
)
PULL = _method("Subscriber", "Pull", pubsub.PullRequest.pb(), pubsub.PullResponse.pb(), "subscription")
ACKNOWLEDGE = _method("Subscriber", "Acknowledge", pubsub.AcknowledgeRequest.pb(), Empty, "subscription")
MODIFY_ACK_DEADLINE = _method(
    "Subscriber", "ModifyAckDeadline", pubsub.ModifyAckDeadlineRequest.pb(), Empty, "subscription"
)
