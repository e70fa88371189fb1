"""All faults there are. Importing this registers them."""

from __future__ import annotations

from tests.nemesis.catalogue import brokers, messages, network, workers

__all__ = ["brokers", "messages", "network", "workers"]
