"""Trouble that Kafka's client tells of, and never says is over."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError

from bus.kafka.trouble import Trouble


def test_trouble_is_told_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while after it was last met, and until a message comes: an idle worker becomes ready again by itself."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    trouble = Trouble()
    away = KafkaError(KafkaError._ALL_BROKERS_DOWN)
    assert trouble.error is None
    trouble.met(away)
    now += 10.0
    assert trouble.error is away
    trouble.met(away)
    now += 10.0
    assert trouble.error is away
    now += 10.0
    assert trouble.error is None
    trouble.met(away)
    trouble.over()
    assert trouble.error is None
