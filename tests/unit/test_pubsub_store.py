"""Who is the first group, where the server's answers cross each other."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

pytest.importorskip("google.pubsub_v1")

from bus import UnreachableError
from bus.pubsub import store as store_module
from bus.pubsub import wire
from bus.pubsub.connection import Connection
from bus.pubsub.names import Names, encode_labels
from bus.pubsub.options import PubsubOptions
from bus.pubsub.store import Store

_NAMES = Names("p", "taskbus")


class _Server:
    """Everything exists, but the note is only found after it was looked for ``late`` times."""

    generation = 0

    def __init__(self, late: int) -> None:
        self.late = late

    async def call(self, method: wire.Method, request: Any, doing: str, **options: Any) -> Any:
        if method is wire.CREATE_TOPIC:
            return None
        if method is wire.GET_TOPIC:
            self.late -= 1
            labels = encode_labels("theirs") | {"epoch": "e"}
            return None if self.late >= 0 else wire.GET_TOPIC.answer(name=request.topic, labels=labels)
        found = wire.GET_SUBSCRIPTION.answer(name=request.subscription, topic=_NAMES.topic("t"))
        found.dead_letter_policy.max_delivery_attempts = 9
        return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAUSE", 0.0)


@pytest.mark.parametrize("late", [0, 1, 5])
def test_a_note_that_is_not_found_at_once(late: int) -> None:
    """A note that another made, and that is not to be seen yet, is waited for: nobody is taken for first in haste."""
    store = Store(cast(Connection, _Server(late)), _NAMES, PubsubOptions())
    assert asyncio.run(store.join("t", "theirs")).subscription == _NAMES.first("t")
    store = Store(cast(Connection, _Server(late)), _NAMES, PubsubOptions())
    assert asyncio.run(store.join("t", "ours")).subscription == _NAMES.group("t", "ours")


def test_a_note_that_is_never_found() -> None:
    """It is an error that says what is wrong, and that trying again may help."""
    store = Store(cast(Connection, _Server(1000)), _NAMES, PubsubOptions())
    with pytest.raises(UnreachableError, match="taskbus-t~first exists and is not found"):
        asyncio.run(store.join("t", "ours"))
