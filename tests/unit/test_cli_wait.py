"""``taskbus send --wait`` listens before it sends."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from apps.cli.commands import send
from apps.cli.errors import run
from bus import Message, Producer, parse_url
from bus.memory import MemoryBus
from task import decode
from task.codec import encode_done


class _DoneAtOnce(Producer):
    """Every task is done before its publish is confirmed."""

    def __init__(self, inner: Producer) -> None:
        self._inner = inner

    async def publish_many(self, messages: Sequence[Message]) -> None:
        await self._inner.publish_many(messages)
        now = "2026-01-01T00:00:00Z"
        bodies = [encode_done(decode(message.body), "complete", "at once", now, now) for message in messages]
        await self._inner.publish_many([Message("done", b"noise"), *(Message("done", body) for body in bodies)])

    async def close(self) -> None:
        await self._inner.close()


class _Bus(MemoryBus):
    async def producer(self) -> Producer:
        return _DoneAtOnce(await super().producer())


def test_a_task_done_at_once_is_not_missed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The done message may come before the sender knows that its task was sent."""
    monkeypatch.setattr(send, "connect", lambda url: _Bus(parse_url(url), clock=time.time))

    code = run(send.command, ["a", "x", "--id", "i", "--wait", "--timeout", "20s", "--bus", "memory:at-once"])

    captured = capfd.readouterr()
    assert (code, captured.err) == (0, "")
    assert captured.out.count("\n") == 1
    assert '"msg":"at once"' in captured.out
