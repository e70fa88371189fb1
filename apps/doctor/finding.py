"""What a check says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from apps.doctor.setup import Setup

__all__ = ["Check", "Finding", "Severity", "note", "problem", "unchecked", "warning"]


class Severity(StrEnum):
    """How bad it is."""

    PROBLEM = "problem"  #: it loses tasks, stops the work or does it twice, now or at the next occasion
    WARNING = "warning"  #: it will do so under conditions that are likely to come
    NOTE = "note"  #: worth knowing
    UNCHECKED = "unchecked"  #: the check could not be made


@dataclass(frozen=True, slots=True)
class Finding:
    """``what`` is so, ``why`` it will hurt, and the ``change`` to make. Of an unchecked one ``what`` says why not."""

    severity: Severity
    what: str
    why: str = ""
    change: str = ""


def problem(what: str, why: str, change: str) -> Finding:
    """Something that hurts."""
    return Finding(Severity.PROBLEM, what, why, change)


def warning(what: str, why: str, change: str) -> Finding:
    """Something that will hurt some day."""
    return Finding(Severity.WARNING, what, why, change)


def note(what: str, why: str, change: str) -> Finding:
    """Something worth knowing."""
    return Finding(Severity.NOTE, what, why, change)


def unchecked(what: str) -> Finding:
    """The check could not be made: why, and what to give so that it can."""
    return Finding(Severity.UNCHECKED, what)


@dataclass(frozen=True, slots=True)
class Check:
    """One question. ``run`` yields what it finds, nothing if all is well; it does no input or output.

    ``needs`` names what must be known: attributes of the setup, ``grace`` or another of its limits, or a fact, as
    ``fact:lease``. Where one is not, the check is not made and says so. ``schemes`` are the buses it is about; empty =
    all.
    """

    name: str
    asks: str
    run: Callable[[Setup], Iterator[Finding]]
    needs: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
