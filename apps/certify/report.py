"""Telling people, or programs, whether the worker is certified, and if not, why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from apps.certify.effects import Kind
from apps.certify.examine import SCENARIOS, Scenario

__all__ = ["as_json", "as_text", "certified", "scenario_lines"]

_ASKS = {
    "once": "each task done once, from the same state, twice over",
    "twice": "every task delivered again after it was done",
    "order": "the tasks in other orders",
    "side-by-side": "tasks at the same time in one process",
    "killed": "the worker killed with kill -9 in the midst of a task",
}
#: What to change, by the kind of side effect.
_ADVICE = {
    Kind.APPENDED: "write the whole to a place named after the task, or look first whether it is there",
    Kind.COUNTED: "store what the task contributes under its id, and add up when reading",
    Kind.NAME: "make names of the task's value or id, not of the time, the process or chance",
    Kind.CONTENT: "derive it from the task; the time it was created is the same each time (self.task.created)",
    Kind.RESULT: "let a task that finds its work done say so as if it had done it",
    Kind.ORDER: "let no task read what another one writes; a chain or workflow gives an order",
    Kind.INTERFERES: "let tasks share neither files nor variables, or guard what they change together",
    Kind.HALF: "write to a temporary name derived from the task, then rename it (os.replace)",
    Kind.LEFT: "give temporary files names derived from the task, so that the repetition replaces them",
    Kind.LOST: "do what is needed again, although a part of it seems to be done",
    Kind.EXTRA: "make names of the task's value or id, and replace what is there",
    Kind.CHANGED: "derive what is written from the task alone, not from what is there",
}


def certified(scenarios: Sequence[Scenario]) -> bool:
    """Whether there is no defect, and every scenario could be gone through."""
    return not any(scenario.defects or _unfinished(scenario) for scenario in scenarios)


def _unfinished(scenario: Scenario) -> bool:
    return any(note.startswith("not finished") for note in scenario.notes)


def scenario_lines(scenario: Scenario) -> list[str]:
    """One scenario, for people."""
    state = "not finished" if _unfinished(scenario) else "ok"
    state = f"{len(scenario.defects)} defect{'s' * (len(scenario.defects) != 1)}" if scenario.defects else state
    lines = [f"{scenario.name}: {state} ({_ASKS[scenario.name]})"]
    for defect in scenario.defects:
        lines.append(f"  {defect.kind}: {defect.where}: {defect.detail}")
        if defect.tasks:
            lines.append(f"    tasks: {', '.join(defect.tasks)}")
        lines += [f"    seen: {defect.seen}", f"    change: {_ADVICE[defect.kind]}"]
    return lines + [f"  note: {note}" for note in scenario.notes]


def as_text(scenarios: Sequence[Scenario], probe: str) -> list[str]:
    """The end of the report."""
    left_out = [name for name in SCENARIOS if name not in {scenario.name for scenario in scenarios}]
    verdict = "certified" if certified(scenarios) else "NOT certified"
    return [
        f"state: {probe}",
        f"{verdict} after {sum(scenario.runs for scenario in scenarios)} runs"
        + (f"; left out: {', '.join(left_out)}" if left_out else ""),
    ]


def as_json(worker: str, tasks: int, scenarios: Sequence[Scenario], probe: str, seed: int) -> dict[str, Any]:
    """One JSON object."""
    return {
        "worker": worker,
        "tasks": tasks,
        "seed": seed,
        "state": probe,
        "certified": certified(scenarios),
        "scenarios": [
            {
                "scenario": scenario.name,
                "runs": scenario.runs,
                "ok": not scenario.defects and not _unfinished(scenario),
                "notes": scenario.notes,
                "defects": [
                    {**dataclasses.asdict(defect), "kind": str(defect.kind), "change": _ADVICE[defect.kind]}
                    for defect in scenario.defects
                ],
            }
            for scenario in scenarios
        ],
    }
