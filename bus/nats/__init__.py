"""The ``nats`` bus: NATS JetStream."""

from bus.nats.adapter import NatsBus

__all__ = ["NatsBus"]
