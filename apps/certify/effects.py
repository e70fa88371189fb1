"""From two states, or two outcomes, that should be the same to the kind of side effect that made them differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

from apps.certify.run import Outcome
from apps.certify.state import Item, State

__all__ = ["Effect", "Kind", "Noise", "compare_outcomes", "compare_states"]

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
#: Characters of a content that are shown.
_SHOWN = 60


class Kind(StrEnum):
    """What is wrong."""

    APPENDED = "appended again"
    COUNTED = "counter incremented again"
    NAME = "name not derived from the task"
    CONTENT = "content not derived from the task"
    RESULT = "another result"
    ORDER = "depends on order"
    INTERFERES = "interferes with another task"
    HALF = "half-written after a kill"
    LEFT = "left behind after a kill"
    LOST = "missing"
    EXTRA = "left more behind"
    CHANGED = "changed again"


@dataclass(frozen=True, slots=True)
class Effect:
    """One side effect. ``where`` is what of the state, or a task."""

    kind: Kind
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class Noise:
    """What differs between two runs that are the same in everything: it is told once, and not compared further.

    ``names`` are stable ones; others differ. ``contents`` are names whose content differs, ``outcomes`` tasks.
    """

    names: Set[str]
    contents: Set[str]
    outcomes: Set[int]
    differs: bool


def compare_states(before: State, after: State, noise: Noise | None = None, *, killed: bool = False) -> list[Effect]:
    """How ``after`` differs from ``before``, which is how it should be."""
    effects = []
    stable = noise.names if noise is not None and noise.differs else None
    if stable is not None:
        random_before, random_after = len(before.keys() - stable), len(after.keys() - stable)
        if random_before != random_after:
            kind = Kind.LEFT if killed and random_after > random_before else Kind.NAME
            effects.append(Effect(kind, "names that differ from run to run", f"{random_before} became {random_after}"))
        before = {name: item for name, item in before.items() if name in stable}
        after = {name: item for name, item in after.items() if name in stable}
    for name in sorted(before.keys() - after.keys()):
        effects.append(Effect(Kind.LOST, name, "it is there when every task is done once, and not now"))
    for name in sorted(after.keys() - before.keys()):
        effects.append(
            Effect(Kind.LEFT if killed else Kind.EXTRA, name, "it is not there when every task is done once")
        )
    for name in sorted(before.keys() & after.keys()):
        if noise is not None and name in noise.contents:
            continue
        if before[name].digest != after[name].digest:
            effects.append(_changed(name, before[name], after[name], killed=killed))
    return effects


def _changed(name: str, before: Item, after: Item, *, killed: bool) -> Effect:
    if before.text is None or after.text is None:
        kind = Kind.HALF if killed and after.size < before.size else Kind.CHANGED
        return Effect(kind, name, f"{before.size} bytes became {after.size} other ones")
    if killed and before.text.startswith(after.text):
        return Effect(Kind.HALF, name, f"it ends after {after.size} of {before.size} bytes")
    was, now = Counter(before.text.splitlines()), Counter(after.text.splitlines())
    gone, more = was - now, now - was
    if not gone and not more:
        return Effect(Kind.ORDER, name, "the same lines in another order")
    if not gone and set(more) <= set(was):
        line = next(iter(more))
        return Effect(Kind.APPENDED, name, f"{_short(line)} is there {now[line]} times, not {was[line]}")
    counted = _counted(gone, more)
    if counted:
        return Effect(Kind.COUNTED, name, counted)
    if not more and killed:
        return Effect(Kind.LOST, name, f"{_short(next(iter(gone)))} is no longer in it")
    lost, new = next(iter(gone), ""), next(iter(more), "")
    return Effect(Kind.CHANGED, name, f"{_short(lost)} became {_short(new)}")


def _counted(gone: Mapping[str, int], more: Mapping[str, int]) -> str:
    """What grew, if every line that differs has its like in which only numbers differ, and grew; else empty."""
    if len(gone) != len(more):
        return ""
    told = ""
    for was, now in zip(sorted(gone), sorted(more), strict=True):
        if _NUMBER.sub("#", was) != _NUMBER.sub("#", now):
            return ""
        pairs = list(zip(_NUMBER.findall(was), _NUMBER.findall(now), strict=True))
        if any(float(new) < float(old) for old, new in pairs):
            return ""
        told = told or f"{_short(was)} became {_short(now)}"
    return told


def _short(line: str) -> str:
    return repr(line if len(line) <= _SHOWN else line[:_SHOWN] + "…")


def compare_outcomes(
    before: Mapping[int, Outcome], after: Mapping[int, Outcome], noise: Noise | None = None
) -> dict[int, str]:
    """The tasks that ended otherwise, and how."""
    return {
        position: f"{before[position]} became {after[position]}"
        if str(before[position]) != str(after[position])
        else f"its meta {dict(before[position].meta)} became {dict(after[position].meta)}"
        for position in after
        if position in before
        and before[position] != after[position]
        and (noise is None or position not in noise.outcomes)
    }
