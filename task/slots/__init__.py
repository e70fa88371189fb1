"""Where user code runs: in threads, on an event loop of its own, or in processes."""

from task.slots.base import Slots
from task.slots.inline import InlineSlots
from task.slots.thread import ThreadSlots

__all__ = ["InlineSlots", "Slots", "ThreadSlots"]
