"""The embedded bus: one SQLite file, shared by the processes of one machine."""

from bus.sql.adapter import SqliteBus

__all__ = ["SqliteBus"]
