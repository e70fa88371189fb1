"""Everything that reads from outside, each with what it may refuse and what must hold of what it takes."""

from __future__ import annotations

from tests.fuzz import brokers, files, rules, texts
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: tuple[Target, ...] = (*texts.TARGETS, *rules.TARGETS, *files.TARGETS, *brokers.TARGETS)
