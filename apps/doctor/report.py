"""Telling people, or programs, what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from apps.doctor.finding import Severity
from apps.doctor.registry import Made
from apps.doctor.setup import Setup

__all__ = ["as_json", "as_text", "worst"]

_ORDER = list(Severity)


def worst(made: Sequence[Made]) -> Severity | None:
    """The severest of all findings; None if there is none."""
    found = [finding.severity for each in made for finding in each.findings]
    return min(found, key=_ORDER.index, default=None)


def _counts(made: Sequence[Made]) -> Counter[str]:
    return Counter(str(finding.severity) for each in made for finding in each.findings)


def as_text(setup: Setup, made: Sequence[Made]) -> list[str]:
    """Lines for people: the findings, the severest first; then what was not checked; then a summary."""
    lines = [f"looked at {_subject(setup)}"]
    for severity in (Severity.PROBLEM, Severity.WARNING, Severity.NOTE):
        for check, findings in made:
            for finding in findings:
                if finding.severity is not severity:
                    continue
                lines.append(f"{severity} {check.name}: {finding.what}")
                lines += [f"  why: {finding.why}", f"  change: {finding.change}"]
    reasons: dict[str, list[str]] = {}
    for check, findings in made:
        for finding in findings:
            if finding.severity is Severity.UNCHECKED:
                reasons.setdefault(finding.what, []).append(check.name)
    lines += [f"unchecked {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    fine = [check.name for check, findings in made if not findings]
    if fine:
        lines.append(f"ok: {', '.join(fine)}")
    counts = _counts(made)
    numbers = ", ".join(f"{counts[each]} {_plural(each, counts[each])}" for each in _ORDER)
    lines.append(f"{len(made)} checks: {numbers}")
    return lines


def _plural(severity: Severity, count: int) -> str:
    return severity if severity is Severity.UNCHECKED or count == 1 else f"{severity}s"


def _subject(setup: Setup) -> str:
    parts = [
        f"the bus {setup.url}" if setup.url is not None else "",
        f"the topic {setup.topic}" if setup.topic else "",
        f"the worker at {setup.status.where}" if setup.status else "",
    ]
    return ", ".join(part for part in parts if part) or "nothing"


def as_json(setup: Setup, made: Sequence[Made]) -> dict[str, Any]:
    """One JSON object."""
    counts = _counts(made)
    return {
        "bus": None if setup.url is None else str(setup.url),
        "topic": setup.topic,
        "group": setup.group,
        "status": setup.status.where if setup.status else None,
        "counts": {str(severity): counts[severity] for severity in Severity},
        "checks": [
            {
                "check": check.name,
                "asks": check.asks,
                "ok": not findings,
                "findings": [
                    {"severity": str(f.severity), "what": f.what, "why": f.why, "change": f.change} for f in findings
                ],
            }
            for check, findings in made
        ],
    }
