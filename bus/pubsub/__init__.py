"""The ``pubsub`` bus: Google Cloud Pub/Sub, and its emulator."""

from bus.pubsub.adapter import PubsubBus

__all__ = ["PubsubBus"]
