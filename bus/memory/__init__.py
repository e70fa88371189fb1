"""The in-memory bus: everything a bus can do, for the life of one process."""

from bus.memory.bus import MemoryBus

__all__ = ["MemoryBus"]
