"""What is written to Pub/Sub is held against the client library's own messages."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("google.pubsub_v1")

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub

from bus.pubsub.messages import MESSAGES, message

#: What the library takes from protocol buffers themselves.
_COMMON: dict[str, Any] = {"Duration": Duration, "Empty": Empty}


def _theirs(name: str) -> Any:
    return _COMMON[name] if name in _COMMON else getattr(pubsub, name).pb()


def _kind(field: FieldDescriptor) -> tuple[object, ...]:
    within = field.message_type
    pair = within is not None and within.GetOptions().map_entry
    return field.number, field.type, field.is_repeated, within.name if within is not None and not pair else pair


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_are_those_of_the_client_library(name: str) -> None:
    theirs = {field.name: _kind(field) for field in _theirs(name).DESCRIPTOR.fields}
    ours = {field.name: _kind(field) for field in message(name).DESCRIPTOR.fields}
    assert ours == {field: theirs.get(field) for field in ours}
    assert list(ours) == [field for field, _, _ in MESSAGES[name]]


def test_what_is_not_used_here_is_kept() -> None:
    """A topic that is read and written again has lost nothing."""
    theirs = pubsub.Topic.pb()(name="topic", labels={"of": "somebody"}, kms_key_name="key", satisfies_pzs=True)
    ours = message("Topic").FromString(theirs.SerializeToString())
    ours.labels["and"] = "ours"
    theirs.labels["and"] = "ours"
    assert pubsub.Topic.pb().FromString(ours.SerializeToString()) == theirs
