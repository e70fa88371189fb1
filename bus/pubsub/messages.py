"""The protocol buffers of Pub/Sub that are used here, and of those the fields that are.

The client library's package makes its clients and all of its messages when any of it is imported, which takes a fifth
of a second and 27 MB (``docs/decisions/0016-pubsub-messages.md``). A test holds these against the library's.
https://github.com/googleapis/googleapis/blob/master/google/pubsub/v1/pubsub.proto
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["MESSAGES", "message"]

#: Name, type and number of each field. ``repeated`` comes before the type, ``texts`` maps texts to texts, and what is
#: no type of protocol buffers is one of these messages. Fields that are not here are kept when they are read.
MESSAGES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "Empty": (),
    "Duration": (("seconds", "int64", 1), ("nanos", "int32", 2)),
    "PubsubMessage": (
        ("data", "bytes", 1),
        ("attributes", "texts", 2),
        ("message_id", "string", 3),
        ("ordering_key", "string", 5),
    ),
    "Topic": (("name", "string", 1), ("labels", "texts", 2)),
    "GetTopicRequest": (("topic", "string", 1),),
    "DeleteTopicRequest": (("topic", "string", 1),),
    "ListTopicsRequest": (("project", "string", 1), ("page_size", "int32", 2), ("page_token", "string", 3)),
    "ListTopicsResponse": (("topics", "repeated Topic", 1), ("next_page_token", "string", 2)),
    "ListTopicSubscriptionsRequest": (("topic", "string", 1), ("page_size", "int32", 2), ("page_token", "string", 3)),
    "ListTopicSubscriptionsResponse": (("subscriptions", "repeated string", 1), ("next_page_token", "string", 2)),
    "PublishRequest": (("topic", "string", 1), ("messages", "repeated PubsubMessage", 2)),
    "PublishResponse": (("message_ids", "repeated string", 1),),
    "ExpirationPolicy": (("ttl", "Duration", 1),),
    "DeadLetterPolicy": (("dead_letter_topic", "string", 1), ("max_delivery_attempts", "int32", 2)),
    "PushConfig": (("push_endpoint", "string", 1),),
    "BigQueryConfig": (("table", "string", 1),),
    "CloudStorageConfig": (("bucket", "string", 1),),
    "Subscription": (
        ("name", "string", 1),
        ("topic", "string", 2),
        ("push_config", "PushConfig", 4),
        ("ack_deadline_seconds", "int32", 5),
        ("message_retention_duration", "Duration", 8),
        ("enable_message_ordering", "bool", 10),
        ("expiration_policy", "ExpirationPolicy", 11),
        ("filter", "string", 12),
        ("dead_letter_policy", "DeadLetterPolicy", 13),
        ("detached", "bool", 15),
        ("enable_exactly_once_delivery", "bool", 16),
        ("bigquery_config", "BigQueryConfig", 18),
        ("cloud_storage_config", "CloudStorageConfig", 22),
    ),
    "GetSubscriptionRequest": (("subscription", "string", 1),),
    "DeleteSubscriptionRequest": (("subscription", "string", 1),),
    "PullRequest": (("subscription", "string", 1), ("max_messages", "int32", 3)),
    "ReceivedMessage": (("ack_id", "string", 1), ("message", "PubsubMessage", 2), ("delivery_attempt", "int32", 3)),
    "PullResponse": (("received_messages", "repeated ReceivedMessage", 1),),
    "AcknowledgeRequest": (("subscription", "string", 1), ("ack_ids", "repeated string", 2)),
    "ModifyAckDeadlineRequest": (
        ("subscription", "string", 1),
        ("ack_deadline_seconds", "int32", 3),
        ("ack_ids", "repeated string", 4),
    ),
}
_PACKAGE = "taskbus.pubsub"
_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "bool": _FIELD.TYPE_BOOL,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="taskbus/pubsub.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        made = file.message_type.add(name=name)
        for field, kind, number in fields:
            single = kind.removeprefix("repeated ")
            label = _FIELD.LABEL_OPTIONAL if single == kind else _FIELD.LABEL_REPEATED
            if single == "texts":
                single, label = f"{name}.{_add_pair(made, field)}", _FIELD.LABEL_REPEATED
            added = made.field.add(name=field, number=number, label=label)
            if single in _TYPES:
                added.type = _TYPES[single]
            else:
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{single}"
    return file


def _add_pair(made: descriptor_pb2.DescriptorProto, field: str) -> str:
    """A map is a list of pairs, each a message within the message."""
    pair = f"{field.capitalize()}Entry"
    nested = made.nested_type.add(name=pair)
    nested.options.map_entry = True
    for number, name in enumerate(("key", "value"), 1):
        nested.field.add(name=name, number=number, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    return pair


#: A pool of its own: whoever uses the client library in the same process has its messages in the common one.
_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_file().SerializeToString())


def message(name: str) -> Any:
    """The class of one of :data:`MESSAGES`."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
