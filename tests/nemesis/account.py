"""The account of a trial: what the ledger says was lost, invented and done again."""

from __future__ import annotations

from typing import NamedTuple

from tests.nemesis.ledger import Event, Ledger

__all__ = ["Account", "settle"]


class Account(NamedTuple):
    """Numbers of tasks. What was no task is counted with them: it has to end in the dead letters."""

    #: Whose publish was confirmed.
    accepted: int
    #: Accepted, and neither a done task nor a dead letter of it came, or a copy of it was not begun.
    lost: int
    #: Of the lost: accepted before the first that came, after the last that came, and between.
    lost_first: int
    lost_last: int
    lost_between: int
    #: Of the lost: begun by user code, so that what was lost is the report.
    lost_reports: int
    #: Seen though nobody attempted to send it.
    invented: int
    #: Executions beyond the first of each, and of each copy, without those after an error that
    #: the task had asked for.
    duplicates: int
    #: Tries to publish beyond the first of each task: the outcome was unknown to the sender.
    published_again: int
    #: Done tasks beyond the first of each, and of each copy.
    reported_again: int
    #: What was no task and was done all the same.
    poison_done: int


def settle(ledger: Ledger) -> Account:
    """Read it once all is quiet."""
    attempted, executed = ledger.count(Event.ATTEMPTED), ledger.count(Event.EXECUTED)
    failed, done, dead = ledger.count(Event.FAILED), ledger.count(Event.DONE), ledger.count(Event.DEAD)
    accepted = ledger.accepted()
    ended, pending, copied = done.keys() | dead.keys(), ledger.pending(), ledger.count(Event.COPIED)
    lost = [number for number, id in enumerate(accepted) if id in pending]
    came = [number for number, id in enumerate(accepted) if id not in pending] or [len(accepted)]
    first = sum(number < came[0] for number in lost)
    last = sum(number > came[-1] for number in lost)
    return Account(
        accepted=len(accepted),
        lost=len(lost),
        lost_first=first,
        lost_last=last,
        lost_between=len(lost) - first - last,
        lost_reports=sum(accepted[number] in executed for number in lost),
        invented=len((ended | executed.keys()) - attempted.keys()),
        duplicates=sum(max(0, times - 1 - failed[id] - copied[id]) for id, times in executed.items()),
        published_again=attempted.total() - len(attempted),
        reported_again=sum(max(0, times - 1 - copied[id]) for id, times in done.items()),
        poison_done=sum(id.startswith("poison") for id in executed.keys() | done.keys()),
    )
