"""The buses that are measured: each new, on a server of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

__all__ = ["at_hand", "new_bus"]

Found = TypeVar("Found")


def at_hand(folder: Path, measure: Callable[[ExitStack, Path], Iterable[Found]]) -> Iterator[Found | str]:
    """What ``measure`` finds with servers started on the stack, in the new ``folder``; or why they cannot be had."""
    os.environ["TASKBUS_SERVERS"] = "1"
    folder.mkdir()
    try:
        with ExitStack() as stack:
            yield from measure(stack, folder)
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        yield f"{folder.name}: {missing}"


def new_bus(name: str, stack: ExitStack, folder: Path) -> str:
    """The URL of an empty bus, whose server runs until the stack ends. Only its own client need be installed."""
    if name == "nats":
        from tests.servers.nats import NatsServer

        return stack.enter_context(NatsServer(folder).running()).url
    if name == "nsq":
        from tests.servers.nsq import Nsqd

        return stack.enter_context(Nsqd(folder).running()).url()
    if name == "kafka":
        from tests.servers.kafka import KafkaServer

        return stack.enter_context(KafkaServer(folder).running()).url
    if name == "pubsub":
        from tests.servers.pubsub import PubsubEmulator

        return f"pubsub://bench?emulator={stack.enter_context(PubsubEmulator(folder).running()).address}"
    return f"{name}:{folder}/tasks"
