"""Every check there is, and making them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from apps.doctor.checks import brokers, clocks, files, kafka, leases, queues, running, settings, stopping
from apps.doctor.finding import Check, Finding, unchecked
from apps.doctor.setup import Setup

__all__ = ["CHECKS", "Made", "examine"]

CHECKS: tuple[Check, ...] = (
    *settings.CHECKS,
    *leases.CHECKS,
    *stopping.CHECKS,
    *running.CHECKS,
    *queues.CHECKS,
    *clocks.CHECKS,
    *files.CHECKS,
    *brokers.CHECKS,
    *kafka.CHECKS,
)


class Made(NamedTuple):
    """A check that was made, or tried. No findings: all is well."""

    check: Check
    findings: tuple[Finding, ...]


def examine(setup: Setup, checks: Sequence[Check] = CHECKS) -> Iterator[Made]:
    """Make every check that is about this bus."""
    for check in checks:
        if not check.schemes or setup.scheme in check.schemes:
            lacking = next((why for need in check.needs if (why := setup.lacks(need))), "")
            yield Made(check, (unchecked(lacking),) if lacking else tuple(check.run(setup)))
